"""AdamW, NAdamW and SGD against torch.optim and a first step by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import build_optimizer

SHAPES = {"square": (5, 5), "twin": (5, 5), "vector": (7,)}


def parameters(dtype: torch.dtype) -> dict[str, torch.nn.Parameter]:
    numbers = torch.Generator().manual_seed(1)
    return {
        name: torch.nn.Parameter(torch.randn(shape, generator=numbers, dtype=dtype))
        for name, shape in SHAPES.items()
    }


def assert_equal_over_20_steps(
    params: dict[str, Any],
    torchs: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
    *,
    dtype: torch.dtype,
    rtol: float,
) -> None:
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = build_optimizer(params, ours.items(), dict.fromkeys(ours, "vector"))
    reference = torchs(list(theirs.values()))
    numbers = torch.Generator().manual_seed(2)
    for _ in range(20):
        for name, param in ours.items():
            param.grad = torch.randn(param.shape, generator=numbers, dtype=dtype)
            theirs[name].grad = param.grad.clone()
        optimizer.step()
        reference.step()
        for name, param in ours.items():
            torch.testing.assert_close(param, theirs[name], rtol=rtol, atol=rtol)


def first_step(params: dict[str, Any], weight: float, grad: float) -> float:
    param = torch.nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    param.grad = torch.tensor([grad], dtype=torch.float64)
    build_optimizer(params | {"no_decay": []}, [("w", param)], {"w": "vector"}).step()
    return param.item()


def test_adamw_first_step_is_decay_then_unit_step() -> None:
    # m_hat = g and v_hat = g^2 at t = 1, so the direction is g / |g| = 1:
    # w = 1 * (1 - 0.1 * 0.1) - 0.1 * 1 = 0.89
    params = from_yaml("adamw", lr=0.1, betas=[0.9, 0.99], eps=0.0, weight_decay=0.1)
    assert first_step(params, 1.0, 0.5) == pytest.approx(0.89, rel=1e-12)


def test_nadamw_first_step_looks_ahead() -> None:
    # m = 0.1 g, n = 0.9 * 0.1 g / (1 - 0.81) + 0.1 g / 0.1 = (9 / 19 + 1) g = 28 / 19 g and
    # v_hat = g^2, so w = 1 * (1 - 0.1 * 0.1) - 0.1 * 28 / 19
    params = from_yaml("nadamw", lr=0.1, betas=[0.9, 0.99], eps=0.0, weight_decay=0.1)
    assert first_step(params, 1.0, 0.5) == pytest.approx(0.99 - 2.8 / 19, rel=1e-12)


@pytest.mark.parametrize(("nesterov", "expected"), [(False, 0.94), (True, 0.895)])
def test_sgd_first_step_by_hand(nesterov: bool, expected: float) -> None:
    # B = g = 0.5, direction 0.5 or 0.5 + 0.9 * 0.5 = 0.95: w = 0.99 - 0.1 * direction
    params = from_yaml("sgd", lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    assert first_step(params, 1.0, 0.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw_equals_torch(weight_decay: float) -> None:
    settings = {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": weight_decay}
    params = from_yaml("adamw", **settings, no_decay=[])

    def plain(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, **settings, foreach=False, fused=False)

    def fused(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, **settings, fused=True)

    # float32 rounds to 6e-8, and 20 steps add up; the fused kernel is the same code.
    assert_equal_over_20_steps(params, plain, dtype=torch.float32, rtol=2e-6)
    assert_equal_over_20_steps(params, plain, dtype=torch.float64, rtol=1e-13)
    assert_equal_over_20_steps(params, fused, dtype=torch.float32, rtol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_nadamw_equals_torch_with_constant_beta1(weight_decay: float) -> None:
    settings = {"lr": 0.01, "betas": [0.95, 0.98], "eps": 1e-8, "weight_decay": weight_decay}
    params = from_yaml("nadamw", **settings, no_decay=[])

    def constant_beta1(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.NAdam(
            weights, **settings, decoupled_weight_decay=True, momentum_decay=1e9
        )

    # torch keeps the product of its betas in float32, hence 1e-7 also in float64.
    assert_equal_over_20_steps(params, constant_beta1, dtype=torch.float32, rtol=2e-6)
    assert_equal_over_20_steps(params, constant_beta1, dtype=torch.float64, rtol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_torch(nesterov: bool) -> None:
    settings = {"lr": 0.01, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.0}
    params = from_yaml("sgd", **settings)

    def torchs(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, **settings)

    assert_equal_over_20_steps(params, torchs, dtype=torch.float32, rtol=2e-6)
    assert_equal_over_20_steps(params, torchs, dtype=torch.float64, rtol=1e-13)
