"""MARS-AdamW against its equations in numpy, and what is left of it without the correction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import SHAPES, Array, assert_follows, gradients, normal, start


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_mars_equals_its_equations(weight_decay: float) -> None:
    b1, b2, gamma, eps, lr = 0.95, 0.98, 0.025, 1e-8, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v, last = np.zeros_like(w), np.zeros_like(w), grads[0]
        for t, g in enumerate(grads, 1):
            c = g + gamma * b1 / (1 - b1) * (g - last)
            length = np.sqrt((c**2).sum())
            c = c / length if length > 1 else c
            m = b1 * m + (1 - b1) * c
            v = b2 * v + (1 - b2) * c**2
            w = w - lr * ((m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * w)
            last = g
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    assert_follows(from_yaml("mars", **settings, gamma=gamma), oracle)


def test_without_correction_it_is_adamw_on_clipped_gradients() -> None:
    settings = {"lr": 0.02, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.1}
    weights, optimizer = start(from_yaml("mars", **settings, gamma=0.0), torch.float64, SHAPES)
    theirs = {n: torch.nn.Parameter(w.double()) for n, w in normal(0, SHAPES).items()}
    reference = torch.optim.AdamW(theirs.values(), **settings)
    for step in range(24):
        for name, grad in gradients(step, SHAPES).items():
            grad = grad.double() * (0.1 if step % 2 else 1.0)  # some shorter than 1
            weights[name].grad = grad.clone()
            theirs[name].grad = grad.clone()
            torch.nn.utils.clip_grad_norm_([theirs[name]], 1.0)
        optimizer.step()
        reference.step()
    for name, weight in weights.items():
        # clip_grad_norm_ divides by |G| + 1e-6.
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-5)
