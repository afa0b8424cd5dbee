"""Adam against its equations in numpy and against torch.optim.Adam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import SHAPES, Array, assert_follows, gradients, normal, train


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_equals_its_equations(weight_decay: float) -> None:
    b1, b2, eps, lr = 0.9, 0.98, 1e-8, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, grad in enumerate(grads, 1):
            h = grad + weight_decay * w
            m = b1 * m + (1 - b1) * h
            v = b2 * v + (1 - b2) * h**2
            w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    assert_follows(from_yaml("adam", **settings), oracle)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_equals_torch_to_the_bit(weight_decay: float) -> None:
    settings = {"lr": 0.02, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": weight_decay}
    ours = train(from_yaml("adam", **settings), torch.float32, SHAPES)
    theirs = {name: torch.nn.Parameter(weight) for name, weight in normal(0, SHAPES).items()}
    reference = torch.optim.Adam(theirs.values(), **settings, fused=True)
    for step in range(24):
        for name, grad in gradients(step, SHAPES).items():
            theirs[name].grad = grad
        reference.step()
    assert {name for name in SHAPES if torch.equal(ours[name], theirs[name])} == set(SHAPES)
