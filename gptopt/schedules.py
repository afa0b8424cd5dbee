"""Learning-rate schedules: pure functions of the step that return a multiplier of ``lr``.

Steps count from 0; step s is the update that takes the run from s to s + 1 steps. All begin
with the same linear warm-up, (s + 1) / warmup_steps, which reaches 1 at its last step.

A decay is a curve of the progress p = (s - start) / (end - start) through the steps of the
decay, where ``end`` is max_steps: it starts from exactly 1 at p = 0, and its floor
``min_lr_ratio`` would be reached at step max_steps, right after the last update. So no update
is lost to a learning rate of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from gptopt.config.types import Count, Fraction, PositiveInt


def constant(step: int, *, max_steps: int, warmup_steps: Count) -> float:
    """1 after the warm-up."""
    return _warmup(step, warmup_steps)


def linear(step: int, *, max_steps: int, warmup_steps: Count, min_lr_ratio: Fraction) -> float:
    """A straight line from the end of the warm-up to ``min_lr_ratio``."""
    p = _progress(step, warmup_steps, max_steps)
    return _warmup(step, warmup_steps) * (1 - (1 - min_lr_ratio) * p)


def cosine(step: int, *, max_steps: int, warmup_steps: Count, min_lr_ratio: Fraction) -> float:
    """Half a cosine from the end of the warm-up to ``min_lr_ratio``.

    Source: Loshchilov and Hutter (2017), "SGDR", without restarts.
    """
    p = _progress(step, warmup_steps, max_steps)
    curve = (1 + math.cos(math.pi * p)) / 2
    return _warmup(step, warmup_steps) * (min_lr_ratio + (1 - min_lr_ratio) * curve)


def wsd(
    step: int,
    *,
    max_steps: int,
    warmup_steps: Count,
    decay_steps: Count,
    decay_shape: Literal["linear", "cosine", "mirror_cosine", "sqrt", "square", "exponential"],
    min_lr_ratio: Fraction,
) -> float:
    """Warm-up, stable at 1, then a decay over the last ``decay_steps`` to ``min_lr_ratio``.

    The decay is ``min_lr_ratio + (1 - min_lr_ratio) f(p)``, with f of ``decay_shape``

        linear          1 - p
        cosine          (1 + cos(pi p)) / 2
        mirror_cosine   2 (1 - p) - (1 + cos(pi p)) / 2: the cosine mirrored at the line
        sqrt            1 - sqrt(p)
        square          1 - p^2

    or, exponential, ``min_lr_ratio^p``, which needs a ``min_lr_ratio`` above 0.
    Source: Hägele et al. (2024), "Scaling laws and compute-optimal training beyond fixed
    training durations"; they find sqrt best.
    """
    p = _progress(step, max_steps - decay_steps, max_steps)
    if decay_shape == "exponential":
        decay = min_lr_ratio**p
    else:
        cosine = (1 + math.cos(math.pi * p)) / 2
        curve = {
            "linear": 1 - p,
            "cosine": cosine,
            "mirror_cosine": 2 * (1 - p) - cosine,
            "sqrt": 1 - math.sqrt(p),
            "square": 1 - p**2,
        }[decay_shape]
        decay = min_lr_ratio + (1 - min_lr_ratio) * curve
    return _warmup(step, warmup_steps) * decay


def inverse_sqrt(
    step: int, *, max_steps: int, warmup_steps: Count, min_lr_ratio: Fraction
) -> float:
    """sqrt(warmup_steps / (s + 1)) after the warm-up, not below ``min_lr_ratio``.

    Without a warm-up it is 1 / sqrt(s + 1).
    Source: Vaswani et al. (2017), "Attention is all you need".
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    return max(min_lr_ratio, math.sqrt(max(1, warmup_steps) / (step + 1)))


def constant_linear(
    step: int, *, max_steps: int, warmup_steps: Count, stable_steps: Count, min_lr_ratio: Fraction
) -> float:
    """1 until step ``stable_steps``, then a line to 0 at the end of the run, cut off from below.

    Where it meets ``min_lr_ratio`` it stays; wsd's line ends there instead, and is flatter.
    Source: GPT-opt, whose constant-linear .4 is stable_fraction 0.4, min_lr_ratio 0.1, without
    a warm-up.
    """
    p = _progress(step, stable_steps, max_steps)
    return _warmup(step, warmup_steps) * max(min_lr_ratio, 1 - p)


def inverse_time(
    step: int, *, max_steps: int, warmup_steps: Count, min_lr_ratio: Fraction
) -> float:
    """warmup_steps / (s + 1) after the warm-up, not below ``min_lr_ratio``.

    Without a warm-up it is 1 / (s + 1), which GPT-opt calls linear.
    Source: Robbins and Monro (1951), "A stochastic approximation method".
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    return max(min_lr_ratio, max(1, warmup_steps) / (step + 1))


def stairs(
    step: int,
    *,
    max_steps: int,
    warmup_steps: Count,
    decay_rate: Fraction,
    decay_interval: PositiveInt,
    min_lr_ratio: Fraction,
) -> float:
    """Multiplied by ``decay_rate`` after every ``decay_interval`` steps that follow the warm-up.

    Not below ``min_lr_ratio``. GPT-opt's exponential_60_0.5 is decay_interval 60, decay_rate
    0.5, without a warm-up.
    """
    intervals = max(0, step - warmup_steps) // decay_interval
    return _warmup(step, warmup_steps) * max(min_lr_ratio, decay_rate**intervals)


def exponential(
    step: int,
    *,
    max_steps: int,
    warmup_steps: Count,
    decay_rate: Fraction,
    decay_interval: PositiveInt,
    min_lr_ratio: Fraction,
) -> float:
    """Falls by the factor ``decay_rate`` every ``decay_interval`` steps after the warm-up.

    Continuously, not in stairs, and not below ``min_lr_ratio``.
    """
    intervals = max(0, step - warmup_steps) / decay_interval
    return _warmup(step, warmup_steps) * max(min_lr_ratio, decay_rate**intervals)


SCHEDULES = {
    f.__name__: f
    for f in (
        constant,
        linear,
        cosine,
        wsd,
        constant_linear,
        inverse_sqrt,
        inverse_time,
        exponential,
        stairs,
    )
}


def multiplier(name: str, max_steps: int, **keys: Any) -> Callable[[int], float]:
    """The schedule ``name`` as a function of the step alone.

    Args:
        name: A function of this file.
        max_steps: Steps of the run.
        keys: The other keyword arguments of that function.
    """
    return partial(SCHEDULES[name], max_steps=max_steps, **keys)


def _warmup(step: int, warmup_steps: int) -> float:
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def _progress(step: int, start: int, end: int) -> float:
    """How far ``step`` is from ``start`` (0) to ``end`` (1), held at 0 before and 1 after."""
    return min(max((step - start) / (end - start), 0.0), 1.0) if start < end else 0.0
