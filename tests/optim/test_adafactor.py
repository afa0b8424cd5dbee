"""Adafactor against its equations in numpy and against torch.optim.Adafactor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import SHAPES, Array, assert_follows, gradients, normal, start, train


def rms(x: Array) -> float:
    return float(np.sqrt((x**2).mean()))


@pytest.mark.parametrize("eps2", [1e-3, 2.0])  # smaller and larger than the weights
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adafactor_equals_its_equations(weight_decay: float, eps2: float) -> None:
    lr, clip, rate = 0.02, 0.9, 0.7

    def oracle(w: Array, grads: list[Array]) -> Array:
        r = c = v = 0.0
        for t, g in enumerate(grads, 1):
            b = 1 - t**-rate
            if w.ndim == 2:
                r = b * r + (1 - b) * (g**2).mean(1)
                c = b * c + (1 - b) * (g**2).mean(0)
                v = np.outer(r, c) / np.mean(r)
            else:
                v = b * v + (1 - b) * g**2
            u = g / np.sqrt(v)
            u = u / max(1, rms(u) / clip)
            w = (1 - lr * weight_decay) * w - lr * max(eps2, rms(w)) * u
        return w

    settings = {"lr": lr, "decay_rate": rate, "clip": clip, "eps1": 1e-7, "eps2": eps2}
    assert_follows(from_yaml("adafactor", **settings, weight_decay=weight_decay), oracle)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adafactor_equals_torch(weight_decay: float) -> None:
    # torch bounds the step size by 1 / sqrt(t), which is above 0.02 until step 2,500.
    settings = {"lr": 0.02, "decay_rate": 0.8, "clip": 1.0, "eps1": 1e-7, "eps2": 1e-3}
    params = from_yaml("adafactor", **settings, weight_decay=weight_decay)
    ours = train(params, torch.float64, SHAPES)
    theirs = {n: torch.nn.Parameter(w.double()) for n, w in normal(0, SHAPES).items()}
    reference = torch.optim.Adafactor(
        theirs.values(), lr=0.02, beta2_decay=-0.8, eps=(1e-7, 1e-3), weight_decay=weight_decay
    )
    for step in range(24):
        for name, grad in gradients(step, SHAPES).items():
            theirs[name].grad = grad.double()
        reference.step()
    for name, weight in theirs.items():
        # torch counts steps in float32, so that t^-0.8 has seven digits.
        torch.testing.assert_close(ours[name], weight.detach(), rtol=1e-6, atol=1e-6)


def test_the_state_of_a_matrix_is_a_row_and_a_column() -> None:
    weights, optimizer = start(from_yaml("adafactor"), torch.float32, {"wide": (5, 14)})
    weights["wide"].grad = torch.ones(5, 14)
    optimizer.step()
    state = optimizer.state_dict()["state"]["wide"]
    assert {name: tuple(part.shape) for name, part in state.items()} == {
        "row": (5, 1),
        "column": (1, 14),
    }


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_gradients_below_eps1_are_divided_by_eps1(shape: tuple[int, ...]) -> None:
    # U = 1e-9 / 1e-7, and eps2 = 2 is larger than RMS(W): a step of lr * 2 * 0.01.
    params = from_yaml("adafactor", lr=0.5, eps1=1e-7, eps2=2.0, weight_decay=0.0)
    weights, optimizer = start(params, torch.float64, {"w": shape})
    before = weights["w"].detach().clone()
    weights["w"].grad = torch.full(shape, 1e-9, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(before - weights["w"].detach(), torch.full_like(before, 0.01))
