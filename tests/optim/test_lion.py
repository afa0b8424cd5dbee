"""Lion against its equations in numpy, and a second step by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import Array, assert_follows

from gptopt.optim import build_optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_lion_equals_its_equations(weight_decay: float) -> None:
    b1, b2, lr = 0.8, 0.95, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m = np.zeros_like(w)
        for g in grads:
            w = w - lr * (np.sign(b1 * m + (1 - b1) * g) + weight_decay * w)
            m = b2 * m + (1 - b2) * g
        return w

    assert_follows(from_yaml("lion", lr=lr, betas=[b1, b2], weight_decay=weight_decay), oracle)


def test_the_step_follows_the_mixture_before_the_average_takes_the_gradient() -> None:
    # M = G1 / 2 = 1. Then C = 0.75 * 1 - 0.25 * 2 = 0.25 > 0, though (1 - 2) / 2 < 0 is the
    # average that contains the second gradient: W = 0 - 0.1 - 0.1.
    params = from_yaml("lion", lr=0.1, betas=[0.75, 0.5], weight_decay=0.0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
    for grad in (2.0, -2.0):
        weight.grad = torch.tensor([grad])
        optimizer.step()
    assert weight.item() == pytest.approx(-0.2)
