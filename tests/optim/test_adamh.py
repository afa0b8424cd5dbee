"""AdamH against its equations in numpy, and the sphere it stays on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import MATRICES, ROWS, Array, assert_follows, normal, start, take_steps, train

SHAPES = {**MATRICES, **ROWS}


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamh_equals_its_equations(weight_decay: float) -> None:
    b1, b2, eps, lr = 0.9, 0.98, 1e-8, 0.05

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v, radius = np.zeros_like(w), np.zeros_like(w), np.linalg.norm(w)
        for t, g in enumerate(grads, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            w = (1 - lr * weight_decay) * w - lr * radius * u / np.linalg.norm(u)
            w = radius * w / np.linalg.norm(w)
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    assert_follows(from_yaml("adamh", **settings), oracle, shapes=SHAPES)


def test_a_matrix_of_zeros_stays_one() -> None:
    weights, optimizer = start(from_yaml("adamh"), torch.float32, SHAPES)
    for weight in weights.values():
        weight.data.zero_()
    take_steps(weights, optimizer, range(3))
    assert all(weight.eq(0).all() for weight in weights.values())


def test_every_matrix_keeps_its_norm() -> None:
    before = normal(0, SHAPES)
    after = train(from_yaml("adamh", lr=0.3), torch.float32, SHAPES)
    for name, weight in after.items():
        torch.testing.assert_close(weight.norm(), before[name].norm())
        assert (
            torch.nn.functional.cosine_similarity(weight.flatten(), before[name].flatten(), dim=0)
            < 0.9
        )
