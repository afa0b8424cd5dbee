"""ADOPT against its equations in numpy, and its promise about beta2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import Array, assert_follows

from gptopt.optim import build_optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adopt_equals_its_equations(weight_decay: float) -> None:
    b1, b2, eps, lr = 0.9, 0.98, 0.3, 0.02  # an eps that divides many of the gradients

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v = np.zeros_like(w), grads[0] ** 2
        w = w - lr * weight_decay * w
        for t, g in enumerate(grads[1:], 1):
            c = t**0.25
            m = b1 * m + (1 - b1) * np.clip(g / np.maximum(np.sqrt(v), eps), -c, c)
            w = w - lr * weight_decay * w - lr * m
            v = b2 * v + (1 - b2) * g**2
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    assert_follows(from_yaml("adopt", **settings), oracle)


def test_adopt_converges_where_adam_goes_astray() -> None:
    # The counterexample of Reddi et al. (2018), "On the convergence of Adam and beyond":
    # gradients 3, -1, -1 in turn sum up to 1, so W has to fall. With b1 = 0 and b2 = 1/10
    # Adam moves it by about -1.05, +0.76, +0.97 in turn, so it rises.
    def travel(name: str) -> float:
        params = from_yaml(name, lr=0.01, betas=[0.0, 0.1], weight_decay=0.0)
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
        for step in range(300):
            weight.grad = torch.tensor([3.0 if step % 3 == 0 else -1.0])
            optimizer.step()
        return weight.item()

    assert travel("adam") > 0.3
    assert travel("adopt") < -0.3
