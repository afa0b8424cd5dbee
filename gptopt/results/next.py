"""What to run next: finer or wider grids of learning rates, seeds where a comparison is open."""

from __future__ import annotations

import itertools
import math
import shlex
from dataclasses import dataclass
from typing import Any

from gptopt.results.columns import SEEDS
from gptopt.results.compare import LEVEL, seeds_to_settle
from gptopt.results.repeat import sweep_file
from gptopt.results.runs import Runs, records
from gptopt.results.select import shown
from gptopt.results.stats import best_trials, trials, welch

RATE = "optimizer.optimizer_params.lr"
COARSE = 1.5
"""A grid with a larger factor than this around its best rate is worth halving."""
FEWEST_SEEDS = 3
MOST_SEEDS = 20


@dataclass(frozen=True)
class Proposal:
    """A sweep that goes on from what was found.

    Attributes:
        text: Of the sweep file; empty where nothing is left to refine.
        reasons: Why each part of it, and why not more; a sentence each.
    """

    text: str
    reasons: list[str]


def propose(runs: Runs) -> Proposal:
    """What to run next.

    Of each optimizer in each workload the best trial is refined with all its other settings
    (ratios of rates, decay, …) carried along: a best rate at an edge by two more beyond it, any
    other by the geometric means to its neighbours. Where the best optimizer is not certainly
    better than another one, both get the seeds that would settle it.
    """
    lines: list[str] = []
    reasons: list[str] = []
    for part in runs.workloads().values():
        best = records(best_trials(trials(part.runs)))
        wanted = _seeds(best, reasons)
        for row in best:
            chosen = part.runs[part.runs["trial"] == row["trial"]]
            seeds = sorted({int(seed) for seed in chosen["seed"].dropna()}) or [0]
            points = list(itertools.product(_rates(row, reasons), seeds))
            unused = (seed for seed in itertools.count() if seed not in seeds)
            missing = max(0, wanted.get(row["optimizer"], 0) - len(seeds))
            points += [(row["lr"], seed) for seed in itertools.islice(unused, missing)]
            typed = chosen["overrides"].iloc[0]
            if isinstance(typed, str):
                lines += [_typed(typed, rate, seed) for rate, seed in points]
            elif points:
                reasons.append(
                    f"{row['optimizer']}: left out, its runs do not tell what was typed."
                )
    text, unsaid = sweep_file(lines)
    reasons += [f"left out, a sweep file cannot say it: {line}" for line in unsaid]
    return Proposal(text, reasons)


def _typed(overrides: str, rate: float, seed: int) -> str:
    """The overrides of a run with another seed and, unless it is no number, another rate."""
    ours = {RATE: f"{rate!r}", SEEDS[0]: f"{seed}"}
    if math.isnan(rate):
        del ours[RATE]
    others = tuple(f"{key}=" for key in (*ours, *SEEDS))
    kept = [text for text in shlex.split(overrides) if not text.startswith(others)]
    return shlex.join([*kept, *(f"{key}={value}" for key, value in ours.items())])


def _rates(row: dict[str, Any], reasons: list[str]) -> list[float]:
    """Further learning rates for a best trial, rising."""
    name, lr = row["optimizer"], row["lr"]
    tried = [rate for rate in row["rates"] if rate > 0]
    if lr not in tried:
        reasons.append(f"{name}: its best lr {shown(lr)} is no number above 0; try rates by hand.")
        return []
    if not math.isfinite(row["mean"]):
        reasons.append(f"{name}: every run diverged; try rates below {min(tried):g} by hand.")
        return []
    place = tried.index(lr)
    if len(tried) == 1:
        reasons.append(f"{name}: only lr {lr:g} was tried; half and double it.")
        return [_rounded(lr / 2), _rounded(2 * lr)]
    if place in (0, len(tried) - 1):
        step = tried[1] / tried[0] if place == 0 else tried[-1] / tried[-2]
        factor = 1 / step if place == 0 else step
        side = "lowest" if place == 0 else "highest"
        reasons.append(f"{name}: its best rate {lr:g} is the {side} tried; go on beyond it.")
        return sorted(_rounded(lr * factor**power) for power in (1, 2))
    around = tried[place - 1 : place + 2]
    middles = [
        _rounded(math.sqrt(low * high))
        for low, high in itertools.pairwise(around)
        if high / low > COARSE
    ]
    if middles:
        added = " and ".join(f"{rate:g}" for rate in middles)
        reasons.append(
            f"{name}: its best rate {lr:g} lies inside; add {added}, half a step around it."
        )
    else:
        reasons.append(f"{name}: its best rate {lr:g} is settled within a factor of {COARSE:g}.")
    return middles


def _seeds(best: list[dict[str, Any]], reasons: list[str]) -> dict[str, int]:
    """How many seeds the best trial of each optimizer should have."""
    few = {row["optimizer"]: row["n"] for row in best if row["n"] < FEWEST_SEEDS}
    wanted = dict.fromkeys(few, FEWEST_SEEDS)
    reasons += [
        f"{name}: its best trial has n = {n}; {FEWEST_SEEDS} seeds show a spread."
        for name, n in few.items()
    ]
    for row in best[1:]:
        pair = best[0], row
        gap, p = welch(row["losses"], best[0]["losses"])
        if not math.isfinite(gap) or p < LEVEL or any(one["optimizer"] in few for one in pair):
            continue
        names = " and ".join(one["optimizer"] for one in pair)
        needed = seeds_to_settle(*pair)
        if needed is None or needed > MOST_SEEDS:
            reasons.append(
                f"{names}: {gap:.4f} apart; to settle that takes more than {MOST_SEEDS} seeds, so"
                " call them equal."
            )
            continue
        reasons.append(f"{names}: {gap:.4f} apart, p = {p:.2g}; {needed} seeds settle it.")
        for one in pair:
            wanted[one["optimizer"]] = max(needed, wanted.get(one["optimizer"], 0))
    return wanted


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
