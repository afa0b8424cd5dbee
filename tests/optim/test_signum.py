"""Signum against its equations in numpy, and against torch's SGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import SHAPES, Array, assert_follows, gradients, normal, train


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_signum_equals_its_equations(nesterov: bool, weight_decay: float) -> None:
    mu, lr = 0.9, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m = np.zeros_like(w)
        for g in grads:
            m = mu * m + (1 - mu) * g
            n = mu * m + (1 - mu) * g if nesterov else m
            w = w - lr * weight_decay * w - lr * np.sign(n)
        return w

    settings = {"lr": lr, "momentum": mu, "nesterov": nesterov, "weight_decay": weight_decay}
    assert_follows(from_yaml("signum", **settings), oracle)


@pytest.mark.parametrize("nesterov", [False, True])
def test_each_step_has_the_sign_of_a_step_of_torchs_sgd(nesterov: bool) -> None:
    # torch's buffer sums gradients, ours averages them: the same sign.
    params = from_yaml("signum", lr=1.0, momentum=0.9, nesterov=nesterov, weight_decay=0.0)
    ours = train(params, torch.float64, SHAPES)
    start = {name: weight.double() for name, weight in normal(0, SHAPES).items()}
    weights = {name: torch.nn.Parameter(weight.clone()) for name, weight in start.items()}
    reference = torch.optim.SGD(weights.values(), lr=1.0, momentum=0.9, nesterov=nesterov)
    way = {name: torch.zeros_like(weight) for name, weight in start.items()}
    for step in range(24):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, grad in gradients(step, SHAPES).items():
            weights[name].grad = grad.double()
        reference.step()
        for name, weight in weights.items():
            way[name] += (weight.detach() - before[name]).sign()
    for name in SHAPES:
        torch.testing.assert_close(ours[name], start[name] + way[name], rtol=0, atol=1e-12)


def test_without_momentum_it_is_sign_sgd() -> None:
    params = from_yaml("signum", lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0)
    way = sum(np.sign(gradients(step, SHAPES)["wide"].double().numpy()) for step in range(3))
    weight = train(params, torch.float64, SHAPES, steps=3)["wide"].numpy()
    np.testing.assert_allclose(weight, normal(0, SHAPES)["wide"].numpy() - 0.5 * way, rtol=1e-14)
