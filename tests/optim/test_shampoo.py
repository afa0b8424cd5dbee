"""Shampoo against its equations in numpy, and against the polar factor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import (
    MATRICES,
    ROWS,
    Array,
    assert_follows,
    assert_resumes,
    assert_shows_nan,
    gradients,
    normal,
    train,
)

B1, B2, EPS, ROOT_EPS, LR = 0.9, 0.95, 1e-8, 1e-3, 0.02
SHAPES = {**MATRICES, **ROWS}


def inverse_root(moment: Array, p: int) -> Array:
    values, vectors = np.linalg.eigh(moment)
    return vectors @ np.diag((values + ROOT_EPS * values.max()) ** (-1 / p)) @ vectors.T


@pytest.mark.parametrize("sides", ["both", "smaller"])
@pytest.mark.parametrize("graft", ["adam", "none"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_shampoo_equals_its_equations(sides: str, graft: str, weight_decay: float) -> None:
    def oracle(w: Array, grads: list[Array]) -> Array:
        rows, columns = w.shape
        m, v = np.zeros_like(w), np.zeros_like(w)
        left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
        for t, g in enumerate(grads, 1):
            m = B1 * m + (1 - B1) * g
            v = B2 * v + (1 - B2) * g**2
            left = B2 * left + (1 - B2) * g @ g.T
            right = B2 * right + (1 - B2) * g.T @ g
            if t % 4 == 1:
                p = 4 if sides == "both" else 2
                root_left = inverse_root(left / (1 - B2**t), p)
                root_right = inverse_root(right / (1 - B2**t), p)
            u = m / (1 - B1**t)
            adam = u / (np.sqrt(v / (1 - B2**t)) + EPS)
            if sides == "both" or rows <= columns:
                u = root_left @ u
            if sides == "both" or rows > columns:
                u = u @ root_right
            if graft == "adam":
                u = u * np.linalg.norm(adam) / np.linalg.norm(u)
            w = w - LR * weight_decay * w - LR * u
        return w

    settings = {"lr": LR, "betas": [B1, B2], "eps": EPS, "root_eps": ROOT_EPS}
    settings |= {"precondition_interval": 4, "sides": sides, "graft": graft}
    params = from_yaml("shampoo", **settings, weight_decay=weight_decay)
    # An eigenvalue at root_eps of the largest is known to 1 / root_eps roundings.
    assert_follows(params, oracle, shapes=SHAPES, float32=1e-3)


@pytest.mark.parametrize("sides", ["both", "smaller"])
def test_without_momentum_the_first_step_is_the_polar_factor(sides: str) -> None:
    # (G G^T)^-1/4 G (G^T G)^-1/4 = U S^-1/2 S S^-1/2 V^T = U V^T, and so is (G G^T)^-1/2 G.
    settings = {"lr": 1.0, "betas": [0.0, 0.9], "graft": "none", "sides": sides}
    params = from_yaml("shampoo", **settings, root_eps=1e-12, weight_decay=0.0)
    after = train(params, torch.float64, MATRICES, steps=1)
    for name, grad in gradients(0, MATRICES).items():
        u, _, vh = torch.linalg.svd(grad.double(), full_matrices=False)
        way = normal(0, MATRICES)[name].double() - after[name]
        torch.testing.assert_close(way, u @ vh, rtol=0, atol=1e-8)


def test_it_resumes_to_the_bit_between_two_refreshes() -> None:
    assert_resumes(from_yaml("shampoo", precondition_interval=3), SHAPES)


def test_a_nan_reaches_the_weights_and_raises_nothing() -> None:
    assert_shows_nan(from_yaml("shampoo", precondition_interval=3), SHAPES)
