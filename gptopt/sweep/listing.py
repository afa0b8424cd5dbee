"""Runs as lines of text: how each stands, and in what it differs from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gptopt.sweep.edges import short
from gptopt.sweep.generators import plain
from gptopt.sweep.plan import PlannedRun


def lines(runs: Sequence[PlannedRun]) -> list[str]:
    """A line per run: number, state, step, and the settings that not all runs share."""
    listed = []
    for run, settings in zip(runs, differing(runs), strict=True):
        known = run.state
        step = f"{known.step}/{known.max_steps}" if known.max_steps else ""
        reason = f"  ({known.reason})" if known.state in ("failed", "diverged") else ""
        listed.append(f"{run.index:>4}  {known.state:<11} {step:>13}  {settings}{reason}")
    return listed


def differing(runs: Sequence[PlannedRun]) -> list[str]:
    """Of each run, the settings that not all runs share, by their short names."""
    count = Counter(text for run in runs for text in set(run.overrides))
    shared = {text for text in count if count[text] == len(runs) > 1}
    return [
        " ".join(_in_short(text) for text in run.overrides if text not in shared) for run in runs
    ]


def _in_short(override: str) -> str:
    path, _, value = override.partition("=")
    return f"{short(plain(path))}={value}"
