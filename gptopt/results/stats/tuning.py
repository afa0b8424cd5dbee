"""What tuning brings: budgets, sensitivity to a rate, importance of settings.

A diverged trial has an infinite loss, of which there is no mean. Where one is taken, each loss
counts as ``ceiling`` at most: the loss before training is the natural choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import comb


def expected_best(losses: Sequence[float], *, ceiling: float) -> np.ndarray:
    """The expected lowest loss of k trials, drawn from those that were run, for k = 1 … n.

    Compares optimizers at equal budgets when they were tuned with unequal ones.

    Args:
        losses: One per trial.
        ceiling: See the module.

    Returns:
        Shape (n,): exact, without replacement.
    """
    ordered = np.sort(_capped(losses, ceiling))
    n = len(ordered)
    worse = n - 1 - np.arange(n)  # trials that are no better than this one
    sizes = np.arange(1, n + 1)[:, None]
    return (comb(worse, sizes - 1) / comb(n, sizes) * ordered).sum(axis=1)


def sensitivity(losses: Sequence[float], *, ceiling: float) -> float:
    """The mean of min(loss, ceiling) - best over the rates of a logarithmic grid.

    Source: Wortsman et al. (2023), arXiv 2309.14322. Compare grids of one span only.
    """
    capped = _capped(losses, ceiling)
    return float(capped.mean() - capped.min())


class Width(NamedTuple):
    """How wide an optimum is.

    Attributes:
        octaves: Log2 of the highest over the lowest rate within.
        closed: Whether a worse rate was tried on both sides; else it may be wider.
    """

    octaves: float
    closed: bool


def width(rates: Sequence[float], losses: Sequence[float], *, margin: float = 0.02) -> Width:
    """The range of rates around the best one whose loss is within ``margin`` of it.

    Between two rates the loss is taken as linear in log(rate); towards a diverged one the
    range ends at the last rate that did not.

    Args:
        rates: Each once, in any order.
        losses: One per rate.
        margin: Nats per token.
    """
    order = np.argsort(rates)
    octave = np.log2(np.asarray(rates, dtype=np.float64)[order])
    loss = _capped(np.asarray(losses)[order], math.inf)
    best = int(loss.argmin())
    if not math.isfinite(loss[best]):
        return Width(0.0, False)
    sides = [_crossing(octave[best:], loss[best:], loss[best] + margin)]
    sides.append(_crossing(octave[best::-1], loss[best::-1], loss[best] + margin))
    return Width(sum(length for length, _ in sides), all(closed for _, closed in sides))


def _crossing(octave: np.ndarray, loss: np.ndarray, limit: float) -> tuple[float, bool]:
    """How far from its first point a curve stays at or below ``limit``; whether it leaves."""
    beyond = loss > limit
    if not beyond.any():
        return float(abs(octave[-1] - octave[0])), False
    out = int(beyond.argmax())
    reach = octave[out - 1]
    if math.isfinite(loss[out]):
        share = (limit - loss[out - 1]) / (loss[out] - loss[out - 1])
        reach += share * (octave[out] - octave[out - 1])
    return float(abs(reach - octave[0])), True


def importance(trials: pd.DataFrame, settings: Sequence[str], *, ceiling: float) -> pd.DataFrame:
    """How much of the variance of the loss each setting explains, alone and in pairs.

    Functional analysis of variance on a full grid (Hutter et al. 2014): the variance of the
    mean loss at each value of a setting, and of what a pair adds to its two means, over
    the variance of all cells. What it finds holds for this grid; a wider one may say otherwise.

    Args:
        trials: A row per run or trial: ``settings`` and ``loss``.
        settings: Columns that span a full grid; the mean over the rest is taken in each cell.
        ceiling: See the module.

    Returns:
        setting (pairs as "a x b"), share (0 to 1), largest first. What is missing to 1 is
        due to three or more settings together.

    Raises:
        ValueError: A cell of the grid is empty; which one is said.
    """
    rows = trials.assign(loss=_capped(trials["loss"], ceiling))
    cells = rows.groupby(list(settings), dropna=False)["loss"].mean()
    levels = [rows[name].drop_duplicates().sort_values().tolist() for name in settings]
    full = pd.MultiIndex.from_product(levels, names=list(settings))
    cells = cells.reindex(full if len(settings) > 1 else full.get_level_values(0))
    if cells.isna().any():
        first = full[cells.isna().to_numpy()][0]
        place = ", ".join(f"{name}={value}" for name, value in zip(settings, first, strict=True))
        raise ValueError(f"No run at {place}: importance takes a full grid.")
    grid = cells.to_numpy().reshape([len(values) for values in levels])
    effects: dict[tuple[int, ...], np.ndarray] = {(): np.full_like(grid, grid.mean())}
    shares = {}
    for size in (1, 2):
        for axes in itertools.combinations(range(len(settings)), size):
            others = tuple(axis for axis in range(len(settings)) if axis not in axes)
            mean = grid.mean(axis=others, keepdims=True) + np.zeros_like(grid)
            parts = [effects[part] for k in range(size) for part in itertools.combinations(axes, k)]
            effects[axes] = mean - np.sum(parts, axis=0)
            shares[" x ".join(settings[axis] for axis in axes)] = effects[axes].var()
    total = grid.var()
    found = pd.DataFrame({"setting": shares.keys(), "share": shares.values()})
    found["share"] = found["share"] / total if total else 0.0
    return found.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _capped(losses: Sequence[float] | np.ndarray | pd.Series, ceiling: float) -> np.ndarray:
    values = np.asarray(losses, dtype=np.float64)
    if not len(values) or np.isnan(values).any():
        raise ValueError("It takes at least one loss, and no NaN: a diverged run's is infinite.")
    return np.minimum(values, ceiling)
