"""Is one optimizer better than another, or than a target?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import ndtr, stdtr, stdtrit

Z_TRACK_3 = 3.09
"""Standard errors that a record of modded-nanogpt's optimization track must be below its
target: a false one in a thousand."""


@dataclass(frozen=True)
class TargetTest:
    """Whether ``n`` losses lie below a target with enough certainty.

    Attributes:
        distance: (target - mean) * sqrt(n), nats per token.
        needed: The distance that it takes.
        passes: ``distance >= needed``.
        p: One-sided p-value of a true mean at or above the target.
    """

    n: int
    mean: float
    distance: float
    needed: float
    passes: bool
    p: float


def below_target(
    losses: Sequence[float], target: float, *, sigma: float | None = None
) -> TargetTest:
    """The rule of modded-nanogpt's optimization track: (T - mean) sqrt(n) >= 3.09 sigma.

    Args:
        losses: Final validation losses of all seeds that were run.
        target: T.
        sigma: Standard deviation between seeds where it is known from many runs (the track
            states 0.0013). When None it is estimated from ``losses``, and the 3.09 standard
            errors of the normal distribution become those of Student's t at the same level.

    Raises:
        ValueError: A NaN, no loss, or one loss and no ``sigma``.
    """
    values = _checked(losses)
    n = len(values)
    if n < 1 or (sigma is None and n < 2):
        raise ValueError(f"{n} loss(es): one needs a known sigma, or else at least two.")
    mean = float(values.mean())
    distance = (target - mean) * math.sqrt(n)
    if not math.isfinite(mean):
        return TargetTest(n, mean, distance, math.nan, False, 1.0)
    spread = float(values.std(ddof=1)) if sigma is None else sigma
    # Infinite degrees of freedom make Student's t the normal distribution.
    freedom = n - 1 if sigma is None else math.inf
    needed = -float(stdtrit(freedom, ndtr(-Z_TRACK_3))) * spread
    p = float(stdtr(freedom, -distance / spread)) if spread else float(distance < 0)
    return TargetTest(n, mean, distance, needed, distance >= needed, p)


@dataclass(frozen=True)
class Difference:
    """A difference of two means, negative when the first is better.

    Attributes:
        low, high: 95 % interval.
        p: Two-sided p-value of no difference.
        n: Runs of the first and of the second side; equal for pairs.
    """

    gap: float
    low: float
    high: float
    p: float
    n: tuple[int, int]


def difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Mean of ``values`` less that of ``reference``, variances unequal (Welch 1947).

    With an infinite loss only the gap is known; ``rank_p`` can still tell the two apart.

    Raises:
        ValueError: A NaN.
    """
    a, b = _checked(values), _checked(reference)
    n = len(a), len(b)
    if not len(a) or not len(b):
        return Difference(math.nan, math.nan, math.nan, math.nan, n)
    with np.errstate(invalid="ignore"):
        gap = float(a.mean() - b.mean())
    if min(n) < 2 or not math.isfinite(gap) or not np.ptp(a) + np.ptp(b):
        return Difference(gap, math.nan, math.nan, math.nan, n)
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval()
    return Difference(gap, float(low), float(high), float(test.pvalue), n)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """The mean difference over the seeds that both sides have, by a paired t-test.

    Args:
        values, reference: Loss by seed. The same seed means the same initial weights and
            the same order of the data, so what it brings to both sides cancels.

    Raises:
        ValueError: A NaN.
    """
    common = sorted(values.keys() & reference.keys())
    a, b = (_checked([side[seed] for seed in common]) for side in (values, reference))
    n = len(common), len(common)
    with np.errstate(invalid="ignore"):
        gap = float((a - b).mean()) if common else math.nan
    if len(common) < 2 or not math.isfinite(gap) or not np.ptp(a - b):
        return Difference(gap, math.nan, math.nan, math.nan, n)
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval()
    return Difference(gap, float(low), float(high), float(test.pvalue), n)


def rank_p(values: Sequence[float], reference: Sequence[float]) -> float:
    """Two-sided p-value of Mann and Whitney's test, where an infinite loss is just the worst.

    Raises:
        ValueError: A NaN.
    """
    a, b = _checked(values), _checked(reference)
    if not len(a) or not len(b):
        return math.nan
    return float(stats.mannwhitneyu(a, b).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several comparisons, adjusted so that all hold together (Holm 1979).

    NaN, a comparison that could not be made, stays NaN and is not counted.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


def power(effect: float, sd: float, n: int, *, level: float = 0.05) -> float:
    """Chance that a one-sided t-test with ``n`` seeds a side sees a true ``effect``.

    Args:
        effect: Difference of the means, nats per token, above 0.
        sd: Standard deviation between seeds.
        level: Chance of a false positive.
    """
    freedom = 2 * (n - 1)
    shift = effect / (sd * math.sqrt(2 / n))
    return float(stats.nct.sf(stats.t.isf(level, freedom), freedom, shift))


def seeds_needed(effect: float, sd: float, *, chance: float = 0.8, level: float = 0.05) -> int:
    """Seeds a side with which ``power`` is at least ``chance``.

    Raises:
        ValueError: ``effect`` or ``sd`` is not above 0.
    """
    if not effect > 0 or not sd > 0:
        raise ValueError(f"effect={effect}, sd={sd}: both must be above 0.")
    # The normal distribution needs fewer; from there on up it is a few steps.
    quantiles = stats.norm.isf(level) + stats.norm.ppf(chance)
    n = max(2, math.floor(2 * (quantiles * sd / effect) ** 2))
    while power(effect, sd, n, level=level) < chance:
        n += 1
    return n


def _checked(values: Sequence[float]) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if np.isnan(numbers).any():
        raise ValueError("A loss is NaN. A run that diverged counts with an infinite loss.")
    return numbers
