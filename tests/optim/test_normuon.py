"""NorMuon against its equations in numpy, and what it does to rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import MATRICES, ROWS, Array, assert_follows

from gptopt.optim import build_optimizer


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_normuon_equals_its_equations(nesterov: bool, weight_decay: float) -> None:
    mu, b2, eps, lr = 0.9, 0.8, 1e-4, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        b, v = np.zeros_like(w), np.zeros((len(w), 1))
        for g in grads:
            b = mu * b + (1 - mu) * g
            u, _, vh = np.linalg.svd(mu * b + (1 - mu) * g if nesterov else b, full_matrices=False)
            o = u @ vh
            v = b2 * v + (1 - b2) * np.mean(o**2, axis=1, keepdims=True)
            r = o / (np.sqrt(v) + eps)
            scale = max(1.0, w.shape[0] / w.shape[1]) ** 0.5
            w = w - lr * weight_decay * w
            w = w - lr * scale * r * np.linalg.norm(o) / np.linalg.norm(r)
        return w

    settings = {"lr": lr, "momentum": mu, "beta2": b2, "eps": eps, "weight_decay": weight_decay}
    params = from_yaml("normuon", **settings, nesterov=nesterov, polar="svd")
    # Polar factors move by 1 / (smallest singular value) per rounding.
    assert_follows(params, oracle, shapes={**MATRICES, **ROWS}, float64=1e-10, float32=1e-3)


def test_the_first_step_has_rows_of_one_size_and_the_norm_of_muons() -> None:
    # v is (1 - b2) times the rows' mean squares, so all rows of R are of one size, and 6 rows
    # of a (6, 20) matrix share the norm sqrt(6) of an orthogonal factor.
    weight = torch.nn.Parameter(torch.zeros(6, 20, dtype=torch.float64))
    grad = torch.randn(6, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight.grad = grad * torch.logspace(0, 2, 6, dtype=torch.float64)[:, None]
    weight.grad[:, :3] += weight.grad[:1, :3]
    params = from_yaml("normuon", lr=0.5, polar="newton_schulz", ns_steps=3, ns_dtype="float64")
    build_optimizer(params, [("w", weight)], {"w": "matrix"}).step()
    rows = weight.detach().norm(dim=1)
    torch.testing.assert_close(rows, rows[:1].expand(6), rtol=1e-8, atol=0)
    muon = torch.nn.Parameter(torch.zeros(6, 20, dtype=torch.float64))
    muon.grad = weight.grad
    settings = {"lr": 0.5, "ns_steps": 3, "ns_dtype": "float64"}
    build_optimizer(from_yaml("muon", **settings), [("w", muon)], {"w": "matrix"}).step()
    assert weight.detach().norm().item() == pytest.approx(muon.detach().norm().item(), rel=1e-12)
    assert muon.detach().norm(dim=1).std() > 0.01  # which has rows of different sizes
