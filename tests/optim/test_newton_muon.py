"""Newton-Muon against its equations in numpy, and what changes of its inputs do to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import build_optimizer

N = 40


def numbers(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def train(params: dict[str, Any], weight: torch.Tensor, turn: torch.Tensor | None = None) -> Any:
    """The weight after 12 steps on inputs (turned) that grow, and all that was seen."""
    model = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    model.weight = torch.nn.Parameter(weight.clone())
    optimizer = build_optimizer(params, [("w", model.weight)], {"w": "matrix"})
    optimizer.attach(model)
    seen = []
    for step in range(12):
        x = (1 + step) * numbers(N, weight.shape[1], seed=step)
        x = x * torch.linspace(0.2, 2, weight.shape[1], dtype=torch.float64)
        x = x if turn is None else x @ turn.mT
        model.zero_grad()
        (model(x) - numbers(N, weight.shape[0], seed=100 + step)).square().mean().backward()
        seen.append((x.numpy(), model.weight.grad.numpy().copy()))
        optimizer.step()
        optimizer.forget()
    return model.weight.detach(), seen


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 6)])
@pytest.mark.parametrize("refresh_every", [1, 5])
@pytest.mark.parametrize("nesterov", [True, False])
def test_it_equals_its_equations(
    shape: tuple[int, int], refresh_every: int, nesterov: bool
) -> None:
    mu, lr, wd, damping = 0.9, 0.05, 0.3, 0.2
    settings = {"lr": lr, "momentum": mu, "weight_decay": wd, "damping": damping, "polar": "svd"}
    params = from_yaml("newton-muon", **settings, refresh_every=refresh_every, nesterov=nesterov)
    ours, seen = train(params, numbers(*shape, seed=7))
    w, b = numbers(*shape, seed=7).numpy(), np.zeros(shape)
    for step, (x, g) in enumerate(seen):
        if step % refresh_every == 0:
            c = x.T @ x / len(x)
            p = np.linalg.inv(c + damping * np.trace(c) / len(c) * np.eye(len(c)))
        b = mu * b + (1 - mu) * g
        u, _, vh = np.linalg.svd(
            (mu * b + (1 - mu) * g if nesterov else b) @ p, full_matrices=False
        )
        w = w - lr * wd * w - lr * max(1.0, shape[0] / shape[1]) ** 0.5 * u @ vh
    # the inverse ends at a residual of 1e-6 of its smallest eigenvalue
    assert np.linalg.norm(ours.numpy() - w) < 1e-5 * np.linalg.norm(w)


def test_a_rotation_of_the_inputs_rotates_the_path() -> None:
    params = from_yaml("newton-muon", polar="svd", refresh_every=3)
    weight = numbers(4, 6, seed=7)
    turn = torch.linalg.qr(numbers(6, 6, seed=8)).Q
    plain, _ = train(params, weight)
    turned, _ = train(params, weight @ turn.mT, turn)
    torch.testing.assert_close(turned @ turn, plain, rtol=0, atol=1e-5)


def test_damping_without_end_leaves_muon() -> None:
    weight = numbers(4, 6, seed=7)
    settings = {"lr": 0.05, "polar": "svd", "weight_decay": 0.1}
    ours, _ = train(from_yaml("newton-muon", **settings, damping=1e9), weight)
    muon, _ = train(from_yaml("muon", **settings), weight)
    torch.testing.assert_close(ours, muon, rtol=0, atol=1e-6)
