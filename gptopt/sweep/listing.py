"""Runs as lines of text: how each stands, and in what it differs from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gptopt.sweep.plan import PlannedRun


def lines(runs: Sequence[PlannedRun]) -> list[str]:
    """A line per run: number, state, step, and the overrides that not all runs share."""
    count = Counter(text for run in runs for text in set(run.overrides))
    shared = {text for text in count if count[text] == len(runs) > 1}
    listed = []
    for run in runs:
        known = run.state
        step = f"{known.step}/{known.max_steps}" if known.max_steps else ""
        settings = " ".join(text for text in run.overrides if text not in shared)
        reason = f"  ({known.reason})" if known.state in ("failed", "diverged") else ""
        listed.append(f"{run.index:>4}  {known.state:<11} {step:>13}  {settings}{reason}")
    return listed
