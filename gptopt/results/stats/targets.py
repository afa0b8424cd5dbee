"""What it costs to reach a loss: in steps, tokens, seconds or FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from gptopt.results.runs import Runs

Cost = Literal["step", "tokens", "seconds", "flops"]
R_MAX = 4.0
"""Where AlgoPerf ends its performance profiles."""


def to_target(runs: Runs, target: float, *, cost: Cost) -> pd.DataFrame:
    """What each run had spent at the first validation with a loss of ``target`` or less.

    Args:
        runs: Of one workload.
        target: Nats per token.
        cost: What is counted. FLOPs are tokens x ``flops_per_token``.

    Returns:
        run_id, optimizer, trial, lr, seed, state, reached (inf for a run that did not get
        there) and spent (by the last row: a run that has not ended may still get there).
    """
    known = runs.runs[["run_id", "optimizer", "trial", "lr", "seed", "state", "flops_per_token"]]
    column = "tokens" if cost == "flops" else cost
    rows = runs.metrics[["run_id", column, "val_loss"]]
    spent = rows.groupby("run_id", observed=True)[column].max()
    # The first such row, not the lowest cost: seconds of a resumed run may repeat.
    hits = rows[rows["val_loss"] <= target].drop_duplicates("run_id").set_index("run_id")[column]
    scale = known["flops_per_token"] if cost == "flops" else 1.0
    found = known.assign(
        reached=known["run_id"].map(dict(hits)).astype(float).fillna(math.inf) * scale,
        spent=known["run_id"].map(dict(spent)).astype(float) * scale,
    )
    return found.drop(columns="flops_per_token")


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def median_interval(costs: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """The median of what several seeds needed, by the percentile bootstrap.

    Args:
        costs: Infinite where the target was not reached; so may be the result.
        seed: Of the draws.
        draws: How many.

    Raises:
        ValueError: No cost, or a NaN.
    """
    values = np.asarray(costs, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        raise ValueError("The median needs at least one cost, and no NaN.")
    rng = np.random.default_rng(seed)
    medians = _median(rng.choice(values, (draws, len(values))))
    low, high = np.quantile(medians, [0.025, 0.975], method="inverted_cdf")
    return Interval(float(_median(values[None])[0]), float(low), float(high))


def _median(rows: np.ndarray) -> np.ndarray:
    """The upper of the middle two: no half of an infinite value."""
    ordered = np.sort(rows, axis=1)
    return ordered[:, rows.shape[1] // 2]


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
