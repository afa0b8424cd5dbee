"""MuonH against its equations in numpy, and the sphere it stays on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import MATRICES, ROWS, Array, assert_follows, normal, train

SHAPES = {**MATRICES, **ROWS}


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_muonh_equals_its_equations(nesterov: bool, weight_decay: float) -> None:
    mu, lr = 0.9, 0.05

    def oracle(w: Array, grads: list[Array]) -> Array:
        b, radius = np.zeros_like(w), np.linalg.norm(w)
        for g in grads:
            b = mu * b + (1 - mu) * g
            u, _, vh = np.linalg.svd(mu * b + (1 - mu) * g if nesterov else b, full_matrices=False)
            o = u @ vh
            w = (1 - lr * weight_decay) * w - lr * radius * o / np.linalg.norm(o)
            w = radius * w / np.linalg.norm(w)
        return w

    settings = {"lr": lr, "momentum": mu, "nesterov": nesterov, "weight_decay": weight_decay}
    # A rounding of N turns the factor by 1 / (smallest singular value).
    params = from_yaml("muonh", **settings, polar="svd")
    assert_follows(params, oracle, shapes=SHAPES, float64=1e-10, float32=1e-3)


def test_every_matrix_keeps_its_norm_at_any_learning_rate() -> None:
    before = normal(0, SHAPES)
    after = train(from_yaml("muonh", lr=0.3), torch.float32, SHAPES)
    for name, weight in after.items():
        torch.testing.assert_close(weight.norm(), before[name].norm())
