"""NS-NAdam against its equations in numpy, and the optimizers that it contains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import MATRICES, ROWS, SHAPES, Array, assert_follows, train

NAMES = {**MATRICES, **ROWS}


def polar_factor(matrix: Array) -> Array:
    u, _, vh = np.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("update_norm", ["rms", "shape", "none"])
@pytest.mark.parametrize("b2", [0.0, 0.98])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_ns_nadam_equals_its_equations(update_norm: str, b2: float, weight_decay: float) -> None:
    b1, eps, lr = 0.9, 1e-6, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, g in enumerate(grads, 1):
            m = b1 * m + (1 - b1) * g
            u = polar_factor(b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t))
            v = b2 * v + (1 - b2) * u**2
            o = u / (np.sqrt(v / (1 - b2**t)) + eps) if b2 else u
            if update_norm == "rms":
                o = 0.2 * o / np.sqrt(np.mean(o**2))
            elif update_norm == "shape":
                o = o * max(1.0, w.shape[0] / w.shape[1]) ** 0.5
            w = w - lr * weight_decay * w - lr * o
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    params = from_yaml("ns-nadam", **settings, update_norm=update_norm, polar="svd")
    # Polar factors move by 1 / (smallest singular value) per rounding, roots near 0 likewise.
    assert_follows(params, oracle, shapes=NAMES, float64=1e-10, float32=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_iterations_it_is_nadamw(weight_decay: float) -> None:
    settings = {"lr": 0.01, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": weight_decay}
    ours = train(
        from_yaml("ns-nadam", **settings, ns_steps=0, update_norm="none"), torch.float64, NAMES
    )
    nadamw = train(from_yaml("nadamw", **settings), torch.float64, NAMES)
    for name in NAMES:
        torch.testing.assert_close(ours[name], nadamw[name], rtol=0, atol=1e-13)


def test_without_averages_it_is_muon_without_momentum() -> None:
    settings = {"lr": 0.01, "weight_decay": 0.1, "ns_dtype": "float64"}
    ours = train(
        from_yaml("ns-nadam", **settings, betas=[0.0, 0.0], update_norm="shape"),
        torch.float64,
        NAMES,
    )
    muon = train(from_yaml("muon", **settings, momentum=0.0), torch.float64, NAMES)
    for name in NAMES:
        torch.testing.assert_close(ours[name], muon[name], rtol=0, atol=1e-12)


def test_rms_gives_every_shape_the_same_step() -> None:
    params = from_yaml("ns-nadam", lr=0.5, weight_decay=0.0)
    start, after = (train(params, torch.float32, NAMES, steps) for steps in (0, 1))
    assert "vector" in SHAPES.keys() - NAMES.keys()
    for name in NAMES:
        rms = (after[name] - start[name]).square().mean().sqrt().item()
        assert rms == pytest.approx(0.5 * 0.2, rel=1e-5)
