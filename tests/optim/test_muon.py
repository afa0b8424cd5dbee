"""Muon against torch.optim.Muon, and against its equations in numpy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import build_optimizer

SHAPES = {"square": (8, 8), "twin": (8, 8), "wide": (6, 20), "tall": (20, 6), "row": (1, 9)}
TORCH_SCALES = {"original": "original", "match_rms": "match_rms_adamw"}


def normal(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=numbers, dtype=dtype) for n, s in SHAPES.items()}


def train(params: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights after 20 steps of gradients that do not depend on the weights."""
    weights = {name: torch.nn.Parameter(w) for name, w in normal(0, dtype).items()}
    optimizer = build_optimizer(params, weights.items(), dict.fromkeys(weights, "matrix"))
    for step in range(20):
        for name, grad in normal(step + 1, dtype).items():
            weights[name].grad = grad
        optimizer.step()
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.mark.parametrize("scale", TORCH_SCALES)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_torch(scale: str, nesterov: bool, weight_decay: float) -> None:
    settings = {"lr": 0.02, "momentum": 0.95, "nesterov": nesterov, "weight_decay": weight_decay}
    ours = train(from_yaml("muon", **settings, scale=scale), torch.float32)
    theirs = [torch.nn.Parameter(weight) for weight in normal(0, torch.float32).values()]
    reference = torch.optim.Muon(theirs, **settings, adjust_lr_fn=TORCH_SCALES[scale])
    for step in range(20):
        for weight, grad in zip(theirs, normal(step + 1, torch.float32).values(), strict=True):
            weight.grad = grad
        reference.step()
    for name, weight in zip(ours, theirs, strict=True):
        # Both orthogonalise in bfloat16, by the same products in the same order; what is left
        # is float32 rounding of lr * scale * O.
        torch.testing.assert_close(ours[name], weight.detach(), rtol=1e-5, atol=1e-6)


def oracle_newton_schulz(x: np.ndarray, steps: int) -> np.ndarray:
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        gram = x @ x.T  # without transposing: the same polynomial of x, at more cost
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


@pytest.mark.parametrize("scale", ["original", "shape", "match_rms", "none"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_its_equations(scale: str, nesterov: bool, weight_decay: float) -> None:
    settings = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
    params = from_yaml("muon", **settings, scale=scale, ns_steps=4, ns_dtype="float64")
    ours = train(params, torch.float64)
    mu, lr = 0.9, 0.02
    for name, (m, n) in SHAPES.items():
        w, b = normal(0, torch.float64)[name].numpy(), np.zeros((m, n))
        length = {
            "original": max(1, m / n) ** 0.5,
            "shape": (m / n) ** 0.5,
            "match_rms": 0.2 * max(m, n) ** 0.5,
            "none": 1,
        }
        for step in range(20):
            g = normal(step + 1, torch.float64)[name].numpy()
            b = mu * b + (1 - mu) * g
            o = oracle_newton_schulz(mu * b + (1 - mu) * g if nesterov else b, steps=4)
            w = w - lr * weight_decay * w - lr * length[scale] * o
        error = np.linalg.norm(ours[name].numpy() - w) / np.linalg.norm(w)
        assert error < 1e-12, name  # only the order of the arithmetic differs


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_muon_in_less_precision_stays_near_float64(dtype: str) -> None:
    # One step moves W by lr times a matrix of singular values near 1. 2 % of it is what eight
    # bits leave after five iterations; float32 keeps 1e-5.
    settings = {"lr": 1.0, "momentum": 0.95, "weight_decay": 0.0, "scale": "none"}
    exact = train(from_yaml("muon", **settings, ns_dtype="float64"), torch.float32)
    rounded = train(from_yaml("muon", **settings, ns_dtype=dtype), torch.float32)
    start = normal(0, torch.float32)
    for name, weight in rounded.items():
        error = (weight - exact[name]).norm() / (exact[name] - start[name]).norm()
        assert error < {"bfloat16": 2e-2, "float32": 1e-5}[dtype]


def test_muon_refuses_what_is_not_a_matrix() -> None:
    params = from_yaml("muon")
    del params["aux"]
    weights = [
        ("w", torch.nn.Parameter(torch.zeros(3, 3))),
        ("b", torch.nn.Parameter(torch.zeros(3))),
    ]
    with pytest.raises(ValueError, match=r"b has shape \(3,\).*aux"):
        build_optimizer(params, weights, {"w": "matrix", "b": "vector"})


def test_the_ratio_is_a_factor_of_the_step() -> None:
    double = train(from_yaml("muon", lr=0.01, muon_lr_ratio=2.0, weight_decay=0.0), torch.float64)
    plain = train(from_yaml("muon", lr=0.02, weight_decay=0.0), torch.float64)
    for name, weight in plain.items():
        torch.testing.assert_close(double[name], weight, rtol=0, atol=1e-14)
