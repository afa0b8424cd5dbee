"""Scion, MuonMax and their Momo forms against their equations and what the paper promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.optim.common import steepest as steepest_file

Array = np.ndarray
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "square": ("matrix", (8, 8)),
    "twin": ("matrix", (8, 8)),
    "wide": ("matrix", (5, 14)),
    "tall": ("matrix", (14, 5)),
    "row": ("matrix", (1, 9)),
    "embedding": ("embedding", (11, 4)),
    "gain": ("vector", (7,)),
}
ROLES = {name: role for name, (role, _) in SHAPES.items()}
PLAIN = ["scion", "muonmax"]
MOMO = ["scion-momo", "muon-momo", "muonmax-momo"]
EXACT = {"polar": "svd", "lr": 0.01, "muon_lr_ratio": 4.0, "no_decay": []}


def normal(seed: int) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=numbers, dtype=torch.float64)
        for name, (_, shape) in SHAPES.items()
    }


def start(params: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    weights = {name: torch.nn.Parameter(w.to(dtype)) for name, w in normal(0).items()}
    return weights, build_optimizer(params, weights.items(), ROLES)


def step(weights: Any, optimizer: RoutedOptimizer, seed: int, loss: float) -> None:
    for name, grad in normal(seed).items():
        weights[name].grad = grad.to(weights[name].dtype)
    optimizer.observe(torch.tensor(loss))
    optimizer.step()
    optimizer.forget()


def polar_factor(matrix: Array) -> Array:
    u, _, vh = np.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def oracle(params: dict[str, Any], losses: list[float]) -> tuple[dict[str, Array], list[float]]:
    """Weights and truncated steps, from the original's equations with the max of (9)."""
    hybrid, adam = "muonmax" in params["name"], params["name"].startswith("muon")
    mu, lr, s = params["momentum"], params["lr"], params["muon_lr_ratio"]
    s = s**0.5 if hybrid else s
    w = {name: tensor.numpy() for name, tensor in normal(0).items()}
    m: dict[str, Array] = {}
    v: dict[str, Array] = {}
    f, steps = None, []
    for number, loss in enumerate(losses):
        g = {name: tensor.numpy() for name, tensor in normal(number + 1).items()}
        u, d = {}, {}
        for name in w:
            m[name] = mu * m.get(name, g[name]) + (1 - mu) * g[name]
            if ROLES[name] == "matrix":
                u[name] = s * polar_factor(m[name])
                d[name] = s * np.linalg.svd(m[name], compute_uv=False).sum()
            elif adam:
                b2 = params["beta2"]
                v[name] = b2 * v.get(name, g[name] ** 2) + (1 - b2) * g[name] ** 2
                scaled = m[name] / (params["eps"] + np.sqrt(v[name]))
                d[name] = (m[name] * scaled).sum()
                u[name] = scaled
                if hybrid:  # adam_2 of the original
                    d[name] = d[name] ** 0.5
                    u[name] = scaled / d[name]
            else:
                u[name], d[name] = np.sign(m[name]), np.abs(m[name]).sum()
        hidden = sum(d[name] for name in w if ROLES[name] == "matrix")
        rest = sum(d[name] ** 2 for name in w if ROLES[name] != "matrix") ** 0.5
        dual = (hidden**2 + rest**2) ** 0.5 if hybrid else sum(d.values())
        q = {n: (hidden if ROLES[n] == "matrix" else d[n]) / dual if hybrid else 1.0 for n in w}
        a = lr
        if "truncate_loss" in params:
            model = loss - sum((w[name] * g[name]).sum() for name in w)
            f = mu * (model if f is None else f) + (1 - mu) * model
            reach = f - params["truncate_loss"] + sum((w[name] * m[name]).sum() for name in w)
            a = min(lr, max(0.0, reach / dual**2 * (1 if hybrid else dual)))
        for name in w:
            w[name] = (1 - lr * params["weight_decay"]) * w[name]
            w[name] = w[name] - a * q[name] * (dual if hybrid else 1) * u[name]
        steps.append(a)
    return w, steps


LOSSES = [12.0 * (2 - number % 5) for number in range(20)]
"""So that steps are full, truncated and zero."""


@pytest.mark.parametrize("name", [*PLAIN, *MOMO])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_equals_its_equations(name: str, weight_decay: float) -> None:
    lr = 3e-4 if "muonmax" in name else 0.01
    params = from_yaml(name, **(EXACT | {"lr": lr}), weight_decay=weight_decay)
    expected, steps = oracle(params, LOSSES)
    if name in MOMO:
        kinds = {(a == lr, a == 0.0) for a in steps}
        assert kinds == {(True, False), (False, False), (False, True)}
    # Polar factors move by 1 / (smallest singular value) per rounding.
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        weights, optimizer = start(params, dtype)
        for number, loss in enumerate(LOSSES):
            step(weights, optimizer, number + 1, loss)
        for key, weight in weights.items():
            way = np.linalg.norm(expected[key] - normal(0)[key].numpy())
            error = np.linalg.norm(weight.detach().double().numpy() - expected[key])
            assert error < limit * way, (key, dtype)


def test_muonmax_takes_the_best_step_there_is() -> None:
    # Of all X the step minimises <M, X> + |X|^2 / 2 with |X|^2 = max of |X_op|^2 + the rest's
    # <X, (sqrt(V) + eps) X>; its value is -D / 2. At the first step M = G and V = G^2.
    params = from_yaml("muonmax", **(EXACT | {"lr": 1.0, "muon_lr_ratio": 1.0}))
    weights, optimizer = start(params)
    step(weights, optimizer, 1, 0.0)
    g, before = normal(1), normal(0)
    best = {name: weights[name].detach() - before[name] for name in weights}

    def value(x: dict[str, torch.Tensor]) -> float:
        linear = sum((g[name] * x[name]).sum() for name in x)
        matrices = [n for n in x if ROLES[n] == "matrix"]
        squares = max(torch.linalg.matrix_norm(x[n], 2) for n in matrices) ** 2
        squares = squares + sum(
            (x[n] ** 2 * (g[n].abs() + params["eps"])).sum() for n in x if n not in matrices
        )
        return float(linear + squares / 2)

    nuclear = sum(torch.linalg.svdvals(g[n]).sum() for n in SHAPES if ROLES[n] == "matrix")
    rest = sum((g[n] ** 2 / (g[n].abs() + 1e-8)).sum() for n in SHAPES if ROLES[n] != "matrix")
    assert value(best) == pytest.approx(float(-(nuclear**2 + rest) / 2), rel=1e-12)
    for seed in range(200):
        noise = normal(1000 + seed)
        size = 10.0 ** -(seed % 5)
        assert value({n: best[n] + size * noise[n] for n in best}) > value(best)


@pytest.mark.parametrize("name", MOMO)
def test_a_step_is_never_uphill(name: str) -> None:
    # A loss below F*: the model of the loss has nothing left to gain, and the original climbs.
    params = from_yaml(name, **EXACT, truncate_loss=100.0)
    weights, optimizer = start(params)
    for weight in weights.values():
        weight.data.zero_()  # so that the model is the loss alone
    step(weights, optimizer, 1, 3.0)
    assert all(weight.eq(0).all() for weight in weights.values())


@pytest.mark.parametrize("name", [*PLAIN, *MOMO])
def test_each_polar_factor_is_computed_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = steepest_file.orthogonal

    def counted(matrix: torch.Tensor, group: Any) -> torch.Tensor:
        seen.append(len(matrix))
        return original(matrix, group)

    monkeypatch.setattr(steepest_file, "orthogonal", counted)
    weights, optimizer = start(from_yaml(name))
    step(weights, optimizer, 1, 5.0)
    assert sorted(seen) == [1, 1, 1, 2]  # four shapes, two matrices of one of them


@pytest.mark.parametrize("name", MOMO)
def test_a_step_without_a_loss_is_refused(name: str) -> None:
    weights, optimizer = start(from_yaml(name))
    assert optimizer.wants_loss
    step(weights, optimizer, 1, 5.0)
    with pytest.raises(RuntimeError, match="observe"):
        optimizer.step()


@pytest.mark.parametrize("name", MOMO)
def test_a_resume_knows_the_average_of_the_loss(name: str) -> None:
    # Two losses before, none alike: without the saved average the third step differs.
    params = from_yaml(name, lr=1.0, truncate_loss=0.5)
    whole, stopped = start(params), start(params)
    for pair in (whole, stopped):
        step(*pair, 1, 9.0)
        step(*pair, 2, 1.0)
    fresh = start(params)
    for key, weight in stopped[0].items():
        fresh[0][key].data.copy_(weight.data)
    fresh[1].load_state_dict(stopped[1].state_dict())
    for pair in (whole, fresh):
        step(*pair, 3, 4.0)
    for key in SHAPES:
        assert torch.equal(fresh[0][key], whole[0][key])
    assert fresh[1].param_groups[0]["loss_average"] is not None


def test_a_matrix_role_on_something_else_is_refused() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"w has shape \(3,\)"):
        build_optimizer(from_yaml("scion"), [("w", weight)], {"w": "matrix"})
