"""Which setting is the best, where not all were run with the same seeds.

Seeds differ in how hard they are, so a mean over fewer of them may be the lucky part of itself.
A loss is therefore taken as what the setting brings plus what the seed brings, by least squares
(a two-way layout, Yates 1934): two settings are compared over the seeds that both have, several
ones also by way of each other, and a further seed of one setting tells nothing about the others.
Where all have the same seeds these are the plain means.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence

Losses = Mapping[Hashable, float]
"""Of one setting: the loss by seed, infinite where the run diverged."""


def comparable_means(settings: Sequence[Losses]) -> list[float]:
    """The mean loss of each setting, less what its seeds bring; infinite with a diverged run.

    Plain means where the seeds do not connect all finite settings: then nothing tells a good
    setting from easy seeds.

    Args:
        settings: At least one loss each.
    """
    plain = [statistics.fmean(losses.values()) for losses in settings]
    finite = [losses for losses, mean in zip(settings, plain, strict=True) if math.isfinite(mean)]
    if not _have_unequal_seeds(finite):
        return plain
    luck = _luck_of_seeds(finite)
    return [
        mean - statistics.fmean(luck.get(seed, 0.0) for seed in losses)
        for mean, losses in zip(plain, settings, strict=True)
    ]


def caveat(settings: Sequence[Losses], best: int) -> str:
    """Why to doubt that setting number ``best`` is the best one; empty where seeds are equal."""
    means = [statistics.fmean(losses.values()) for losses in settings]
    finite = [losses for losses in settings if math.isfinite(sum(losses.values()))]
    if not _have_unequal_seeds(finite):
        return ""
    fewest, most = min(map(len, finite)), max(map(len, finite))
    seeds = f"{fewest} to {most} seeds" if fewest < most else f"unlike seeds, {most} each"
    how = "over the seeds they share" if _luck_of_seeds(finite) else "by plain means"
    words = f"its settings have {seeds} and were compared {how}"
    lowest = min(range(len(means)), key=means.__getitem__)
    if means[lowest] < means[best]:
        words += f"; a lower mean, {means[lowest]:.4f} of {len(settings[lowest])}, was passed over"
    return words


def _have_unequal_seeds(settings: Sequence[Losses]) -> bool:
    return any(losses.keys() != settings[0].keys() for losses in settings)


def _luck_of_seeds(settings: Sequence[Losses]) -> Losses:
    """What each seed adds to a loss, zero on average; nothing where that cannot be told."""
    import numpy as np  # late: most sweeps have equal seeds, and their plans come without it

    seeds = list(dict.fromkeys(seed for losses in settings for seed in losses))
    present = np.array([[seed in losses for seed in seeds] for losses in settings], dtype=float)
    loss = np.array([[losses.get(seed, 0.0) for seed in seeds] for losses in settings])
    share = present / present.sum(axis=1, keepdims=True)
    # the normal equations without the settings: each seed against the means it is part of
    normal = np.diag(present.sum(axis=0)) - present.T @ share
    if np.linalg.matrix_rank(normal) < len(seeds) - 1:
        return {}
    right = loss.sum(axis=0) - share.T @ loss.sum(axis=1)
    luck = np.linalg.lstsq(normal, right)[0]
    return dict(zip(seeds, luck.tolist(), strict=True))
