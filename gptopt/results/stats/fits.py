"""Power laws of the loss, and the speed-up that they tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

EXPONENTS = (0.01, 3.0)
"""Where the exponent is looked for; of language models it is below 1."""


@dataclass(frozen=True)
class PowerLaw:
    """L(D) = a D^-exponent + floor."""

    a: float
    exponent: float
    floor: float

    def loss(self, data: float) -> float:
        """The loss after ``data`` tokens (or parameters, or FLOPs)."""
        return self.a * data**-self.exponent + self.floor

    def data(self, loss: float) -> float:
        """What it takes to reach ``loss``; infinite at the floor and below."""
        if loss <= self.floor:
            return math.inf
        return float(((loss - self.floor) / self.a) ** (-1 / self.exponent))


def fit_power_law(data: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """The least-squares fit of ``PowerLaw``.

    For a given exponent a and the floor follow linearly, so that the search is in one
    dimension: over a grid of exponents, then between the neighbours of the best.

    Args:
        data: Tokens, above 0; of three or more different sizes.
        losses: Finite, one per entry of ``data``; several seeds may share a size.

    Raises:
        ValueError: Fewer than three sizes, something not finite, or a loss that does not fall.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (data, losses))
    if len(np.unique(x)) < 3 or not np.isfinite([x, y]).all() or (x <= 0).any():
        raise ValueError("A power law takes finite losses at three or more sizes above 0.")
    scale = np.exp(np.log(x).mean())  # near 1, the two columns are well conditioned

    def solve(exponent: float) -> tuple[np.ndarray, float]:
        terms = np.stack([(x / scale) ** -exponent, np.ones_like(x)], axis=1)
        found = np.linalg.lstsq(terms, y, rcond=None)[0]
        return found, float(((terms @ found - y) ** 2).sum())

    grid = np.geomspace(*EXPONENTS, 200)
    best = int(np.argmin([solve(exponent)[1] for exponent in grid]))
    around = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    exponent = float(
        minimize_scalar(
            lambda b: solve(b)[1], bounds=around, method="bounded", options={"xatol": 1e-10}
        ).x
    )
    a, floor = solve(exponent)[0]
    if a <= 0:
        raise ValueError("The losses do not fall with the data: no power law describes them.")
    return PowerLaw(float(a * scale**exponent), exponent, float(floor))


def speed_up(baseline: PowerLaw, data: float, loss: float) -> float:
    """How much more data the baseline needs for ``loss`` than the ``data`` that it took.

    Source: Wen et al. (2025), "Fantastic pretraining optimizers and where to find them".
    Infinite for a loss that the baseline's fit never reaches: then the fit says nothing.
    """
    return baseline.data(loss) / data


def fit_exponent(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(a, b) of y = a x^b, a straight line in logarithms: such as a best rate by width.

    Raises:
        ValueError: Fewer than two different x, or a value that is not above 0 and finite.
    """
    values = np.asarray([x, y], dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all() or len(np.unique(values[0])) < 2:
        raise ValueError("A line in logarithms takes two or more x, and values above 0.")
    slope, intercept = np.polyfit(np.log(values[0]), np.log(values[1]), 1)
    return float(np.exp(intercept)), float(slope)
