"""Prodigy against its equations in numpy, and the distance that it finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import SHAPES, gradients, normal, start

from gptopt.optim import build_optimizer

B1, B2, EPS, D0, LR = 0.9, 0.98, 1e-8, 1e-3, 0.7


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_prodigy_equals_its_equations(
    dtype: torch.dtype, limit: float, weight_decay: float, bias_correction: bool
) -> None:
    # All parameters share d, so the oracle moves them as one vector. 1e-4 in float32: d is a
    # ratio of sums, and an error in it goes into every later step.
    settings = {"lr": LR, "betas": [B1, B2], "eps": EPS, "d0": D0, "weight_decay": weight_decay}
    params = from_yaml("prodigy", **settings, bias_correction=bias_correction)
    weights, optimizer = start(params, dtype, SHAPES)
    x0 = np.concatenate([w.double().numpy().ravel() for w in normal(0, SHAPES).values()])
    x, m, v, s, r, d = x0, 0 * x0, 0 * x0, 0 * x0, 0.0, D0
    for k in range(24):
        # Slopes of a quadratic around 1, and noise: they point away from where W came from.
        noise = gradients(k, SHAPES)
        g = np.concatenate(
            [w.detach().double().numpy().ravel() - 1 for w in weights.values()]
        ) + np.concatenate([noise[name].double().numpy().ravel() for name in SHAPES])
        position = 0
        for weight in weights.values():
            part = g[position : position + weight.numel()].reshape(tuple(weight.shape))
            weight.grad = torch.tensor(part, dtype=dtype)
            position += weight.numel()
        g = np.concatenate([w.grad.double().numpy().ravel() for w in weights.values()])
        optimizer.step()
        gamma = LR
        if bias_correction:
            gamma *= math.sqrt(1 - B2 ** (k + 1)) / (1 - B1 ** (k + 1))
        root = math.sqrt(B2)
        m = B1 * m + (1 - B1) * d * g
        v = B2 * v + (1 - B2) * d**2 * g**2
        r = root * r + (1 - root) * gamma * d**2 * float(g @ (x0 - x))
        s = root * s + (1 - root) * gamma * d**2 * g
        x = x - gamma * d * weight_decay * x - gamma * d * m / (np.sqrt(v) + d * EPS)
        d = max(d, r / np.abs(s).sum())
    ours = np.concatenate([w.detach().double().numpy().ravel() for w in weights.values()])
    assert d > 10 * D0
    assert optimizer.param_groups[0]["d"] == pytest.approx(d, rel=limit)
    assert np.linalg.norm(ours - x) / np.linalg.norm(x - x0) < limit


def test_d_grows_to_the_distance_of_the_solution_and_not_beyond() -> None:
    # |x - 3| has its solution 3 away from 0; theory bounds d by that distance.
    params = from_yaml("prodigy", betas=[0.0, 0.99])
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
    for _ in range(400):
        weight.grad = (weight.detach() - 3).sign()
        optimizer.step()
    assert 0.3 < optimizer.param_groups[0]["d"] <= 3.0


def test_d_is_one_for_all_groups() -> None:
    matrix, gain = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.ones(2))
    parameters = [("w", matrix), ("gain", gain)]
    optimizer = build_optimizer(from_yaml("prodigy"), parameters, {"w": "matrix", "gain": "vector"})
    for _ in range(20):
        matrix.grad, gain.grad = matrix.detach() - 1, torch.zeros(2)
        optimizer.step()
    one, other = (group["d"] for group in optimizer.param_groups)
    assert one == other > 1e-6
