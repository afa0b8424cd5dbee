"""What it costs to reach a loss: in steps, tokens, seconds or FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd

from gptopt.results.runs import Runs

Cost = Literal["step", "tokens", "seconds", "flops"]
R_MAX = 4.0
"""Where AlgoPerf ends its performance profiles."""
FEWEST_FOR_INTERVAL = 6
"""Values from which on their range holds the median with more than 95 %."""
MISSED = 0.05


def to_target(runs: Runs, target: float, *, cost: Cost) -> pd.DataFrame:
    """What each run had spent when its validation loss came down to ``target``.

    That is between the first evaluation at or below it and the one before: on the straight line
    through both, for costs and loss alike. A first evaluation, or one behind a loss that is not
    finite, counts itself.

    Args:
        runs: Of one workload.
        target: Nats per token.
        cost: What is counted. FLOPs are tokens x ``flops_per_token``.

    Returns:
        run_id, optimizer, trial, lr, seed, state, reached (inf for a run that did not get
        there) and spent (by the last row: a run that has not ended may still get there).

    Raises:
        ValueError: A run that got there does not tell its cost.
    """
    known = runs.runs[["run_id", "optimizer", "trial", "lr", "seed", "state", "flops_per_token"]]
    column = "tokens" if cost == "flops" else cost
    spent = runs.metrics.groupby("run_id", observed=True)[column].max()
    hits = _crossings(runs.metrics, column, target)
    scale = known["flops_per_token"] if cost == "flops" else 1.0
    reached = known["run_id"].map(dict(hits)).astype(float) * scale
    got_there = known["run_id"].isin(hits.index)
    if untold := int((got_there & reached.isna()).sum()):
        raise ValueError(
            f"{untold} of {len(known)} runs do not tell their {cost}: choose another cost, such as"
            " step, which every run tells."
        )
    found = known.assign(
        reached=reached.where(got_there, math.inf),
        spent=known["run_id"].map(dict(spent)).astype(float) * scale,
    )
    return found.drop(columns="flops_per_token")


def _crossings(metrics: pd.DataFrame, column: str, target: float) -> pd.Series:
    """What was spent at ``target``, by ``run_id``, without the runs that did not get there."""
    rows = metrics.loc[metrics["event"] == "eval", ["run_id", column, "val_loss"]]
    before = rows.groupby("run_id", observed=True)[[column, "val_loss"]].shift()
    # The first such row, not the lowest cost: seconds of a resumed run may repeat.
    hits = rows[rows["val_loss"] <= target].drop_duplicates("run_id")
    before = before.loc[hits.index]
    share = (before["val_loss"] - target) / (before["val_loss"] - hits["val_loss"])
    crossed = before[column] + share * (hits[column] - before[column])
    return crossed.fillna(hits[column]).set_axis(hits["run_id"])


class Interval(NamedTuple):
    """An estimate, and its 95 % interval or, of few values, the range of these."""

    value: float
    low: float
    high: float
    is_range: bool

    def __str__(self) -> str:
        """In full; ``low to high`` is called what it is."""
        kind = "range" if self.is_range else "95 % interval"
        value, low, high = (f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}" for x in self[:3])
        return f"{value} ({kind} {low} to {high})"


def median_interval(costs: Sequence[float]) -> Interval:
    """The median of what several seeds needed; of an even number, the upper of the middle two.

    The interval is that of the sign test (Thompson 1936): the outermost values between which the
    median lies with 95 % or more, whatever the distribution. A bootstrap of so few values holds it
    with 87 to 92 %. Below ``FEWEST_FOR_INTERVAL`` values there is none: even their whole range,
    which is returned then, misses the median with a chance of 2^(1 - n).

    Args:
        costs: Infinite where the target was not reached; so may be the result.

    Raises:
        ValueError: No cost, or a NaN.
    """
    ordered = sorted(costs)
    n = len(ordered)
    if not n or any(map(math.isnan, ordered)):
        raise ValueError("The median needs at least one cost, and no NaN.")
    outside, below = 0, 0.0  # values left out at each end; chance that the median lies below them
    while n >= FEWEST_FOR_INTERVAL and below + math.comb(n, outside) / 2**n <= MISSED / 2:
        below += math.comb(n, outside) / 2**n
        outside += 1
    left_out = max(outside - 1, 0)
    is_range = n < FEWEST_FOR_INTERVAL
    return Interval(ordered[n // 2], ordered[left_out], ordered[n - 1 - left_out], is_range)


def ratios(costs: pd.DataFrame) -> pd.DataFrame:
    """Each cost over the lowest of its workload; infinite where nobody reached the target.

    Args:
        costs: A row per workload, a column per optimizer; inf where not reached.
    """
    best = costs.min(axis=1)
    relative = costs.div(best.where(best < math.inf), axis=0)
    return relative.fillna(math.inf)


def performance_profile(costs: pd.DataFrame, within: Sequence[float]) -> pd.DataFrame:
    """rho(tau): the share of workloads that an optimizer solves within tau x the best cost.

    Source: Dolan and Moré (2002), as AlgoPerf uses it.

    Args:
        costs: As ``ratios`` takes them.
        within: tau, each 1 or more.

    Returns:
        A row per tau, a column per optimizer.
    """
    relative = ratios(costs)
    return pd.DataFrame({tau: (relative <= tau).mean() for tau in within}).T


def profile_score(costs: pd.DataFrame, *, r_max: float = R_MAX) -> pd.Series:
    """The area below each performance profile from 1 to ``r_max``, between 0 and 1."""
    return (r_max - ratios(costs).clip(upper=r_max)).mean() / (r_max - 1)
