"""SOAP against its equations in numpy, its eigenbasis, and what a rotation of W does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import (
    MATRICES,
    ROWS,
    Array,
    Shapes,
    assert_follows,
    assert_resumes,
    assert_shows_nan,
    gradients,
    start,
    take_steps,
)

from gptopt.optim import build_optimizer

B1, B2, B, EPS, LR = 0.9, 0.98, 0.9, 1e-8, 0.02
SETTINGS = {"lr": LR, "betas": [B1, B2], "shampoo_beta": B, "eps": EPS}


def first_bases(params: dict[str, Any], shapes: Shapes) -> dict[str, dict[str, torch.Tensor]]:
    """The state after the first of the oracle's gradients."""
    weights, optimizer = start(params, torch.float64, shapes)
    take_steps(weights, optimizer, range(1))
    return optimizer.state_dict()["state"]


def turned(moment: Array, q: Array) -> tuple[Array, Array]:
    order = np.argsort(-np.diag(q.T @ moment @ q))
    return np.linalg.qr(moment @ q[:, order])[0], order


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("name", [*MATRICES, *ROWS])
def test_soap_equals_its_equations(name: str, weight_decay: float) -> None:
    # The first basis is open where the first G G^T or G^T G has no full rank: the oracle takes
    # it from the state, and the second comes when ten gradients have filled all directions.
    params = from_yaml("soap", **SETTINGS, weight_decay=weight_decay, precondition_interval=10)
    shapes = {name: {**MATRICES, **ROWS}[name]}
    state = first_bases(params, shapes)[name]

    def oracle(w: Array, grads: list[Array]) -> Array:
        q_l, q_r = state["left_basis"].numpy(), state["right_basis"].numpy()
        m, v = np.zeros_like(w), np.zeros_like(w)
        left, right = (1 - B) * grads[0] @ grads[0].T, (1 - B) * grads[0].T @ grads[0]
        w = w - LR * weight_decay * w
        for s, g in enumerate(grads[1:], 1):
            m = B1 * m + (1 - B1) * g
            v = B2 * v + (1 - B2) * (q_l.T @ g @ q_r) ** 2
            n = (q_l.T @ m @ q_r / (1 - B1**s)) / (np.sqrt(v / (1 - B2**s)) + EPS)
            w = w - LR * weight_decay * w - LR * q_l @ n @ q_r.T
            left = B * left + (1 - B) * g @ g.T
            right = B * right + (1 - B) * g.T @ g
            if s % 10 == 0:
                q_l, rows = turned(left, q_l)
                q_r, columns = turned(right, q_r)
                v = v[rows][:, columns]
        return w

    # The basis of a moment of condition 1e4 turns by 1e4 roundings; in float32 also the first
    # basis is another one.
    assert_follows(params, oracle, shapes=shapes, float64=1e-11, float32=np.inf)


@pytest.mark.parametrize("name", MATRICES)
def test_the_first_basis_holds_the_eigenvectors_in_falling_order(name: str) -> None:
    state = first_bases(from_yaml("soap", **SETTINGS), MATRICES)[name]
    grad = gradients(0, MATRICES)[name].double()
    for side, product in (("left", grad @ grad.mT), ("right", grad.mT @ grad)):
        basis = state[f"{side}_basis"]
        eye = torch.eye(len(basis), dtype=torch.float64)
        torch.testing.assert_close(basis.mT @ basis, eye, rtol=0, atol=1e-13)
        values = torch.linalg.eigvalsh(product).flip(-1)
        expected = torch.diag(values)
        torch.testing.assert_close(basis.mT @ product @ basis, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-2)])
def test_rotated_gradients_give_rotated_steps(dtype: torch.dtype, limit: float) -> None:
    # Adam depends on the axes; in the gradients' own basis there are none. 1e-2 in float32:
    # v starts with entries near 0, by the root of which a small component is divided.
    numbers = torch.Generator().manual_seed(5)
    left, right = (
        torch.linalg.qr(torch.randn(6, 6, generator=numbers, dtype=torch.float64)).Q.to(dtype)
        for _ in range(2)
    )
    params = from_yaml("soap", **SETTINGS, weight_decay=0.0, precondition_interval=3)
    plain, rotated = (torch.nn.Parameter(torch.zeros(6, 6, dtype=dtype)) for _ in range(2))
    optimizers = [build_optimizer(params, [("w", w)], {"w": "matrix"}) for w in (plain, rotated)]
    for _ in range(20):
        plain.grad = torch.randn(6, 6, generator=numbers, dtype=dtype)
        rotated.grad = left @ plain.grad @ right
        for optimizer in optimizers:
            optimizer.step()
    error = (rotated - left @ plain @ right).norm() / plain.norm()
    assert error < limit


def test_it_resumes_to_the_bit_between_two_turns_of_the_basis() -> None:
    assert_resumes(from_yaml("soap", precondition_interval=3), MATRICES | ROWS)


def test_a_nan_reaches_the_weights_and_raises_nothing() -> None:
    assert_shows_nan(from_yaml("soap", precondition_interval=3), MATRICES | ROWS)
