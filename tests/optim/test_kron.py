"""PSGD-Kron against its equations in numpy, and the whiteness that it is after."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import MATRICES, ROWS, Array, assert_follows, assert_resumes, assert_shows_nan

from gptopt.optim import build_optimizer
from gptopt.optim.common.cost import cost
from gptopt.optim.kron import updates_until

SHAPES = {**MATRICES, **ROWS}
MU, RATE, CLIP, LR, SEED = 0.9, 0.3, 0.8, 0.02, 5
SETTINGS = {"lr": LR, "momentum": MU, "precondition_lr": RATE, "clip": CLIP, "seed": SEED}


def size(matrix: Array) -> float:
    """Two power iterations from numbers of seed 0, as gptopt.optim.common.linalg promises."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(len(matrix), 1, generator=numbers, dtype=torch.float64).numpy()
    for _ in range(2):
        x = matrix @ (matrix @ x)
        x = x / np.linalg.norm(x)
    return float(np.linalg.norm(matrix @ x))


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_kron_equals_its_equations(weight_decay: float) -> None:
    def oracle(w: Array, grads: list[Array]) -> Array:
        q_l, q_r, average = np.eye(w.shape[0]), np.eye(w.shape[1]), np.zeros_like(w)
        for t, g in enumerate(grads, 1):
            average = MU * average + (1 - MU) * g
            n = average / (1 - MU**t)
            if t <= 8 or t % 2 == 0:
                numbers = torch.Generator().manual_seed(SEED + t)
                v = torch.randn(w.shape, generator=numbers).double().numpy()
                a = q_l @ n @ q_r.T
                b = np.linalg.inv(q_l).T @ v @ np.linalg.inv(q_r)
                aa, bb = a @ a.T, b @ b.T
                new = q_l - RATE * np.triu(aa - bb) @ q_l / size(aa + bb)
                aa, bb = a.T @ a, b.T @ b
                q_r = q_r - RATE * np.triu(aa - bb) @ q_r / size(aa + bb)
                q_l = new
            u = q_l.T @ q_l @ n @ q_r.T @ q_r
            u = u * min(1, CLIP / np.sqrt((u**2).mean()))
            w = w - LR * weight_decay * w - LR * u
        return w

    # From step 8 on half of the steps: fall_steps of 1 reaches the least share at once.
    schedule = {"flat_steps": 8, "fall_steps": 1, "least_share": 0.5}
    params = from_yaml("kron", **SETTINGS, **schedule, weight_decay=weight_decay)
    # Triangular solves lose some digits by the condition of Q_L and Q_R.
    assert_follows(params, oracle, shapes=SHAPES, float64=1e-10, float32=1e-3)


def test_preconditioned_gradients_become_white() -> None:
    # G = X Z Y with white Z. P_L G P_R with P = Q^T Q is white, up to its size, where
    # P_L X and P_R Y^T are multiples of orthogonal matrices; at the start their condition is 10.
    numbers = torch.Generator().manual_seed(0)

    def mixing(n: int) -> torch.Tensor:
        q = torch.linalg.qr(torch.randn(n, n, generator=numbers, dtype=torch.float64)).Q
        return q @ torch.diag(torch.logspace(-0.5, 0.5, n, dtype=torch.float64)) @ q.mT

    x, y = mixing(6), mixing(4)
    weight = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    params = from_yaml("kron", momentum=0.0, precondition_lr=0.02, flat_steps=2000)
    optimizer = build_optimizer(params, [("w", weight)], {"w": "matrix"})
    for _ in range(1500):
        weight.grad = x @ torch.randn(6, 4, generator=numbers, dtype=torch.float64) @ y
        optimizer.step()
    state = optimizer.state_dict()["state"]["w"]
    q_left, q_right = state["q_left"], state["q_right"]
    assert torch.linalg.cond(q_left.mT @ q_left @ x) < 1.5
    assert torch.linalg.cond(q_right.mT @ q_right @ y.mT) < 1.5
    assert torch.equal(q_left, q_left.triu())
    assert 0.9 < q_left.abs().max() / q_right.abs().max() < 1.1


def test_it_resumes_to_the_bit() -> None:
    assert_resumes(from_yaml("kron", flat_steps=4, fall_steps=5, least_share=0.3), SHAPES)


def test_the_number_of_updates_is_the_sum_of_the_published_probabilities() -> None:
    def published(step: int) -> float:
        return min(1.0, max(0.03, math.exp(-0.001 * (step - 500))))

    for steps in (100, 500, 2000, 10_000):
        expected = sum(published(step + 0.5) for step in range(steps))
        assert updates_until(steps, 500, 1000, 0.03) == pytest.approx(expected, rel=1e-3)


def test_its_products_are_counted() -> None:
    m, n = 4, 6
    apply = 2 * 2 * m * n * (m + n)  # (5) multiplies by both factors twice
    sides = 2 * m * n * (m + n)  # A of (2); the solves of B take half of that
    outer = 2 * sides  # A A^T, A^T A and those of B
    norms = 2 * 5 * (m**2 + n**2)  # two iterations of two products with a vector, and one more
    learn = 1.5 * sides + outer + norms + 2 * (m**3 + n**3)  # (3) and (4)
    model = torch.nn.Linear(n, m, bias=False, device="meta")
    found = cost(from_yaml("kron"), model, {"weight": "matrix"})
    assert found is not None
    assert found.flops == apply + learn
    assert found.state_bytes * m * n == 4 * (m * n + m**2 + n**2)


def test_a_nan_reaches_the_weights_and_raises_nothing() -> None:
    assert_shows_nan(from_yaml("kron"), SHAPES)
