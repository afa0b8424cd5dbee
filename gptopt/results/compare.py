"""Is A better than B? Two selections of runs, each judged by its best trial."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptopt.results.clock import clock_doubts
from gptopt.results.fairness import UnlikeError, doubts, obstacles
from gptopt.results.runs import Runs, records
from gptopt.results.select import brief
from gptopt.results.stats import best_trials, outcome, trials
from gptopt.results.tuned import RATE, setting_words

if TYPE_CHECKING:
    import pandas as pd

    from gptopt.results.stats.significance import Difference
    from gptopt.results.stats.targets import Cost, Interval

UNITS: dict[Cost, str] = {"step": "steps", "tokens": "tokens", "seconds": "s", "flops": "FLOPs"}
LEVEL = 0.05
"""Two-sided p-value below which a difference counts as settled."""
MOST_SEEDS = 1000
"""A difference that takes more seeds than this is said to be none."""


@dataclass(frozen=True)
class Side:
    """What is compared with another.

    Attributes:
        name: What was asked for.
        runs: All its runs.
        best: Its best trial, as ``best_trials`` gives it.
        losses: What the runs of the best trial count with, by seed: the same number on both
            sides is the same seed of weights and data.
    """

    name: str
    runs: Runs
    best: dict[str, Any]
    losses: dict[int, float]


@dataclass(frozen=True)
class Comparison:
    """Two sides, and how sure their difference is.

    Attributes:
        a, b: The sides.
        doubts: Reasons not to believe it.
        welch: Of the final losses, A less B.
        paired: The same over the seeds that both have.
        rank_p: Of Mann and Whitney's test, which diverged runs do not disturb.
        target: The loss that speed is measured to, nats per token.
        cost: What was counted.
        spent: What A and B needed for it: median over seeds, infinite where not reached.
    """

    a: Side
    b: Side
    doubts: list[str]
    welch: Difference
    paired: Difference
    rank_p: float
    target: float
    cost: Cost
    spent: tuple[Interval, Interval]

    @property
    def ratio(self) -> float:
        """What A needed over what B needed; NaN where neither got there."""
        a, b = (side.value for side in self.spent)
        return math.nan if math.isinf(b) and math.isinf(a) else a / b

    def lines(self) -> list[str]:
        """The comparison for people."""
        return [
            *_side("A", self.a),
            *_side("B", self.b),
            _difference("A - B", self.welch, "Welch"),
            *([_difference("by seed", self.paired, "paired")] if self.paired.n[0] > 1 else []),
            f"ranks: {_p(self.rank_p)} (Mann and Whitney)",
            self._speed(),
            *self._seeds(),
            *(f"! {doubt}" for doubt in self.doubts),
        ]

    def _speed(self) -> str:
        unit = UNITS[self.cost]
        if math.isinf(self.target):
            return f"{unit}: no loss that both sides reach, one of them diverged"
        a, b = self.spent
        ratio = "" if math.isnan(self.ratio) else f": {self.ratio:.2f} x"
        return f"{unit} to {self.target:.4f}: A {a}, B {b}{ratio}"

    def _seeds(self) -> list[str]:
        if self.welch.p < LEVEL:
            return []
        needed = seeds_to_settle(self.a.best, self.b.best)
        if needed is None:
            return [
                "Not settled, and the spread between seeds is unknown: run each with 3 or more."
            ]
        if needed > MOST_SEEDS:
            return [f"Not settled; a difference this small takes more than {MOST_SEEDS} seeds."]
        return [
            f"Not settled: if the difference is what it seems, {needed} seeds a side show it with"
            " a chance of 80 % (two-sided, 5 %)."
        ]


def compare(
    a: tuple[str, Runs],
    b: tuple[str, Runs],
    *,
    compared: Collection[str],
    target: float | None,
    cost: Cost,
) -> Comparison:
    """Compares the best trials of two sides.

    Args:
        a, b: Name and runs.
        compared: Columns beside the optimizer's in which the sides are meant to differ.
        target: Loss to measure the speed to, nats per token. When None, the worst final loss of
            the side with the higher mean, which all its seeds reach.
        cost: What to measure the speed in.

    Raises:
        UnlikeError: They differ in what makes losses comparable: see ``fairness.obstacles``.
        ValueError: A side without a run that has ended, or with a run of the other one.
    """
    from gptopt.results.stats.significance import difference, paired_difference, rank_p
    from gptopt.results.stats.targets import median_interval, to_target

    _check_apart(a, b)
    found = obstacles(a[1].runs, b[1].runs, compared=compared)
    if found:
        listed = "".join(f"\n  {reason}" for reason in found)
        raise UnlikeError(f"{a[0]} and {b[0]} cannot be compared:{listed}")
    best, table = [], []
    for letter, (name, runs) in zip("AB", (a, b), strict=True):
        named = runs.runs.assign(optimizer=letter, workload=letter)
        rows = records(best_trials(trials(named)))
        if not rows:
            raise ValueError(
                f"{letter}, {name}: none of its {len(named)} runs has ended with a validation loss."
            )
        best.append(rows[0])
        table.append(named)
    one, other = _sides((a, b), best)
    worse = one if one.best["mean"] > other.best["mean"] else other
    limit = max(worse.losses.values()) if target is None else target
    costs = [
        to_target(_judged(side), limit, cost=cost)["reached"].tolist() for side in (one, other)
    ]
    losses = [list(side.losses.values()) for side in (one, other)]
    of_time = clock_doubts([one.runs, other.runs]) if cost == "seconds" else []
    return Comparison(
        one,
        other,
        [*doubts(_joined(table), best, compared=compared), *of_time],
        difference(*losses),
        paired_difference(one.losses, other.losses),
        rank_p(*losses),
        limit,
        cost,
        (median_interval(costs[0]), median_interval(costs[1])),
    )


def seeds_to_settle(a: dict[str, Any], b: dict[str, Any]) -> int | None:
    """Seeds a side that would show a difference as large as it seems; None where the spread is
    not known.

    Args:
        a, b: Rows of ``best_trials``.
    """
    from gptopt.results.stats.significance import seeds_needed

    gap = abs(a["mean"] - b["mean"])
    variances = [row["sd"] ** 2 for row in (a, b) if math.isfinite(row["sd"])]
    if not variances or not any(variances) or not math.isfinite(gap):
        return None
    sd = math.sqrt(statistics.fmean(variances))
    # A normal distribution takes 2 (1.96 + 0.84)^2 = 15.7 of these; spares a long search.
    if gap == 0 or 15 * (sd / gap) ** 2 > MOST_SEEDS:
        return MOST_SEEDS + 1
    return seeds_needed(gap, sd, level=LEVEL / 2)


def _check_apart(a: tuple[str, Runs], b: tuple[str, Runs]) -> None:
    both = set(a[1].runs["run_id"]) & set(b[1].runs["run_id"])
    if both:
        raise ValueError(f"{a[0]} and {b[0]} share {len(both)} runs: a run is no rival of itself.")


def _sides(given: tuple[tuple[str, Runs], ...], best: list[dict[str, Any]]) -> tuple[Side, Side]:
    """The two sides, with seeds numbered alike."""
    numbers: dict[Any, int] = {}
    sides = []
    for (name, runs), row in zip(given, best, strict=True):
        pairs = zip(row["seeds"], row["losses"], strict=True)
        by_seed = {numbers.setdefault(seed, len(numbers)): loss for seed, loss in pairs}
        sides.append(Side(name, runs, row, by_seed))
    return sides[0], sides[1]


def _judged(side: Side) -> Runs:
    """The runs of its best trial that count."""
    runs = side.runs.runs
    return side.runs.only((runs["trial"] == side.best["trial"]) & outcome(runs).notna())


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def _side(letter: str, side: Side) -> list[str]:
    """What a side came to, and the optimizer and settings that won."""
    row = side.best
    spread = f" ± {row['sd']:.4f} (sd)" if math.isfinite(row["sd"]) else ""
    rates = _count(len(row["rates"]), "rate")
    flag = f" (the {row['edge']} tried)" if row["edge"] else ""
    chosen = side.runs.runs[side.runs.runs["trial"] == row["trial"]]
    others = {key: value for key, value in row["settings"].items() if key != RATE}
    words = ", ".join(filter(None, (f"lr={brief(row['lr'])}{flag}", setting_words(others))))
    return [
        f"{letter}  {side.name}: {row['mean']:.4f}{spread} nats per token, n = {row['n']};"
        f" best of {_count(row['trials'], 'trial')}, {rates} with its other settings",
        f"   {chosen['optimizer'].iloc[0]}: {words}",
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _difference(label: str, found: Difference, test: str) -> str:
    if not math.isfinite(found.gap):
        return f"{label}: a run diverged, and its loss is no number"
    if math.isnan(found.p):
        return f"{label} = {found.gap:+.4f}; no spread, so nothing is known of its certainty"
    return (
        f"{label} = {found.gap:+.4f} nats, 95 % interval {found.low:+.4f} to {found.high:+.4f},"
        f" {_p(found.p)} ({test}, two-sided)"
    )


def _p(value: float) -> str:
    known = "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}"
    return "p unknown" if math.isnan(value) else known
