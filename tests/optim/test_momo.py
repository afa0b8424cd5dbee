"""Momo and MomoAdam against their algorithms in numpy, Polyak's step and Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import RoutedOptimizer, build_optimizer

SIZES = {"a": (4, 3), "b": (4, 3), "c": (7,)}
LOSSES = [8.0 * (2 - number % 5) for number in range(20)]


def normal(seed: int) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=numbers, dtype=torch.float64) for n, s in SIZES.items()}


def start(params: dict[str, Any]) -> tuple[dict[str, torch.nn.Parameter], RoutedOptimizer]:
    weights = {name: torch.nn.Parameter(w) for name, w in normal(0).items()}
    return weights, build_optimizer(params, weights.items(), dict.fromkeys(weights, "vector"))


def train(params: dict[str, Any]) -> np.ndarray:
    """All weights in one row after 20 steps."""
    weights, optimizer = start(params)
    for number, loss in enumerate(LOSSES):
        for name, grad in normal(number + 1).items():
            weights[name].grad = grad
        optimizer.observe(torch.tensor(loss))
        optimizer.step()
        optimizer.forget()
    return torch.cat([weight.detach().flatten() for weight in weights.values()]).numpy()


def flat(seed: int) -> np.ndarray:
    return torch.cat([tensor.flatten() for tensor in normal(seed).values()]).numpy()


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_momo_equals_its_algorithm(bias_correction: bool, weight_decay: float) -> None:
    b, lr, bound = 0.8, 0.2, 0.25
    w, steps = flat(0), []
    d, f, gamma = np.zeros_like(w), 0.0, 0.0
    for t, loss in enumerate(LOSSES, 1):
        g = flat(t)
        if t == 1 and not bias_correction:
            d, f, gamma = g, loss, w @ g
        d = b * d + (1 - b) * g
        f, gamma = b * f + (1 - b) * loss, b * gamma + (1 - b) * w @ g
        rho = 1 - b**t if bias_correction else 1.0
        q = 1 + lr * weight_decay
        t1 = max(q * (f - rho * bound) + w @ d - q * gamma, 0) / (d @ d)
        steps.append(min(lr / rho, t1) * rho / lr)
        w = (w - min(lr / rho, t1) * d) / q
    assert min(steps) == 0
    assert max(steps) == pytest.approx(1)
    assert any(0 < share < 1 for share in steps)
    params = from_yaml(
        "momo",
        lr=lr,
        momentum=b,
        bias_correction=bias_correction,
        truncate_loss=bound,
        weight_decay=weight_decay,
        no_decay=[],
    )
    np.testing.assert_allclose(train(params), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_momo_adam_equals_its_algorithm(weight_decay: float) -> None:
    (b1, b2), lr, bound, eps = (0.8, 0.95), 0.2, 0.25, 1e-6
    w, steps = flat(0), []
    m, v, f, gamma = np.zeros_like(w), np.zeros_like(w), 0.0, 0.0
    for t, loss in enumerate(LOSSES, 1):
        g = flat(t)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        f, gamma = b1 * f + (1 - b1) * loss, b1 * gamma + (1 - b1) * w @ g
        c, root = 1 - b1**t, np.sqrt(v / (1 - b2**t)) + eps
        q = 1 + lr * weight_decay
        t1 = max(q * (f - c * bound) + w @ m - q * gamma, 0) / (m**2 / root).sum()
        steps.append(min(lr / c, t1) * c / lr)
        w = (w - min(lr / c, t1) * m / root) / q
    assert min(steps) == 0
    assert max(steps) == pytest.approx(1)
    assert any(0 < share < 1 for share in steps)
    params = from_yaml(
        "momo-adam",
        lr=lr,
        betas=[b1, b2],
        eps=eps,
        truncate_loss=bound,
        weight_decay=weight_decay,
        no_decay=[],
    )
    np.testing.assert_allclose(train(params), w, rtol=0, atol=1e-12)


def test_without_momentum_momo_takes_polyaks_step() -> None:
    # f = |x|^2 / 2 has F* = 0 and gradient x, so the step is |x|^2 / 2 / |x|^2 = 1 / 2.
    params = from_yaml("momo", lr=100.0, momentum=0.0, truncate_loss=0.0, weight_decay=0.0)
    weight = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
    for number in range(1, 4):
        weight.grad = weight.detach().clone()
        optimizer.observe(weight.detach().square().sum() / 2)
        optimizer.step()
        torch.testing.assert_close(weight.data, torch.tensor([3.0, -4.0]) / 2**number)


def test_never_truncated_momo_adam_is_adam() -> None:
    params = from_yaml("momo-adam", lr=1e-3, betas=[0.9, 0.99], weight_decay=0.0)
    weights, optimizer = start(params)
    theirs = [torch.nn.Parameter(tensor) for tensor in normal(0).values()]
    adam = torch.optim.Adam(theirs, lr=1e-3, betas=(0.9, 0.99), eps=1e-8)
    for number in range(20):
        for (name, grad), other in zip(normal(number + 1).items(), theirs, strict=True):
            weights[name].grad, other.grad = grad, grad
        optimizer.observe(torch.tensor(1e6))
        optimizer.step()
        adam.step()
    for weight, other in zip(weights.values(), theirs, strict=True):
        torch.testing.assert_close(weight, other, rtol=0, atol=1e-13)


def test_groups_with_and_without_decay_reach_the_bound_together() -> None:
    # Where the step is truncated, the linear model at the new weights is F*, whatever the q.
    params = from_yaml("momo", lr=0.5, momentum=0.0, truncate_loss=2.0, weight_decay=0.7)
    weights = {"a": normal(0)["a"], "c": normal(0)["c"]}
    parameters = {name: torch.nn.Parameter(w.clone()) for name, w in weights.items()}
    roles = {"a": "matrix", "c": "vector"}
    optimizer = build_optimizer(params, parameters.items(), roles)
    loss = 3.0
    for name, param in parameters.items():
        param.grad = normal(1)[name]
    optimizer.observe(torch.tensor(loss))
    optimizer.step()
    model = loss + sum(
        ((param.detach() - weights[name]) * param.grad).sum().item()
        for name, param in parameters.items()
    )
    assert model == pytest.approx(2.0, abs=1e-12)
