"""AdEMAMix against its equations in numpy, and the law of its ramp."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optim_toy import from_yaml
from oracle import Array, assert_follows

from gptopt.optim.ademamix import slow_decay


@pytest.mark.parametrize("ramp_steps", [0, 10, 100])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_ademamix_equals_its_equations(weight_decay: float, ramp_steps: int) -> None:
    b1, b2, b3, alpha, eps, lr = 0.9, 0.98, 0.999, 5.0, 1e-8, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m1, m2, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
        for t, g in enumerate(grads, 1):
            a, b = alpha, b3
            if t < ramp_steps:
                x = t / ramp_steps
                a = alpha * x
                below = (1 - x) * math.log(b3) + x * math.log(b1)
                b = math.exp(math.log(b1) * math.log(b3) / below)  # as the paper writes it
            m1 = b1 * m1 + (1 - b1) * g
            m2 = b * m2 + (1 - b) * g
            v = b2 * v + (1 - b2) * g**2
            n = m1 / (1 - b1**t) + a * m2
            w = w - lr * (n / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * w)
        return w

    settings = {"lr": lr, "betas": [b1, b2, b3], "eps": eps, "weight_decay": weight_decay}
    params = from_yaml("ademamix", **settings, alpha=alpha, ramp_steps=ramp_steps)
    assert_follows(params, oracle)


def test_the_half_life_rises_linearly() -> None:
    def half_life(decay: float) -> float:
        return math.log(0.5) / math.log(decay)

    first, last = half_life(0.9), half_life(0.9999)
    for share in (0.0, 0.25, 0.5, 1.0):
        expected = first + share * (last - first)
        assert half_life(slow_decay(0.9, 0.9999, share)) == pytest.approx(expected, rel=1e-9)
