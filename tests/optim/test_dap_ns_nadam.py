"""DAP-NS-NAdam: what it promises of least squares and of changed inputs; its settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import from_yaml

from gptopt.optim import RoutedOptimizer, build_optimizer

N, IN, OUT = 64, 6, 4
ONE_STEP = {"dap_beta1": 0.0, "dap_beta2": 0.0, "lr": 1.0, "weight_decay": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"accelerated": False},
    "general": {"accelerated": True},
    "psd": {"accelerated": 0.0},
    "damped": {"accelerated": 0.05, "damping": 0.05},
    "scalar": {"scalar": True, "accelerated": True},
}


def numbers(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def layer(params: dict[str, Any], weight: torch.Tensor) -> tuple[torch.nn.Linear, RoutedOptimizer]:
    model = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    model.weight = torch.nn.Parameter(weight.clone())
    optimizer = build_optimizer(params, [("weight", model.weight)], {"weight": "matrix"})
    optimizer.attach(model)
    return model, optimizer


def step(model: torch.nn.Linear, optimizer: RoutedOptimizer, x: Any, y: Any) -> None:
    """One step on |X W^T - Y|^2 / 2N."""
    model.zero_grad()
    ((model(x) - y).square().sum() / (2 * len(x))).backward()
    optimizer.step()
    optimizer.forget()


@pytest.mark.parametrize("variant", ["plain", "general", "psd"])
def test_one_step_solves_least_squares(variant: str) -> None:
    x, y = numbers(N, IN, seed=0), numbers(N, OUT, seed=1)
    x = x * torch.linspace(0.3, 2, IN, dtype=torch.float64)
    solution = torch.linalg.lstsq(x, y).solution.mT
    params = from_yaml("dap-ns-nadam", **ONE_STEP, **VARIANTS[variant])
    start = 10 * numbers(OUT, IN, seed=2)
    model, optimizer = layer(params, start)
    step(model, optimizer, x, y)
    # The iterations leave 1e-6 of the way at most; the test below what they converge to.
    assert (model.weight - solution).norm() < 1e-6 * (start - solution).norm()


def test_the_pseudo_inverse_itself_solves_it_exactly() -> None:
    # Three steps square the residual three times more: what is left is float64.
    x, y = numbers(N, IN, seed=0), numbers(N, OUT, seed=1)
    solution = torch.linalg.lstsq(x, y).solution.mT
    params = from_yaml("dap-ns-nadam", **ONE_STEP, accelerated=True)
    model, optimizer = layer(params, numbers(OUT, IN, seed=2))
    for _ in range(3):
        step(model, optimizer, x, y)
    assert (model.weight - solution).abs().max() < 1e-13


def test_the_path_does_not_depend_on_a_linear_change_of_the_inputs() -> None:
    # x -> A x and W -> W A^-1 is the same function, before training and after every step.
    x, y, w = numbers(N, IN, seed=0), numbers(N, OUT, seed=1), numbers(OUT, IN, seed=2)
    a = torch.eye(IN, dtype=torch.float64) + 0.2 * numbers(IN, IN, seed=3)
    settings = {**ONE_STEP, "dap_beta1": 0.9, "lr": 0.3, "accelerated": True}
    params = from_yaml("dap-ns-nadam", **settings, rcond=1e-5)
    outputs = []
    for inputs, weight in ((x, w), (x @ a.mT, w @ torch.linalg.inv(a))):
        model, optimizer = layer(params, weight)
        for _ in range(5):
            step(model, optimizer, inputs, y)
        outputs.append(model(inputs).detach())
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-7)
    assert (outputs[0] - x @ w.mT).norm() > 1


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_preconditioning_it_is_nadamw(weight_decay: float) -> None:
    common = {"lr": 0.01, "eps": 1e-8, "weight_decay": weight_decay}
    dap = from_yaml("dap-ns-nadam", **common, disable_preconditioning=True)
    results = []
    for params in (dap, from_yaml("nadamw", **common, betas=[0.95, 0.999])):
        model, optimizer = layer(params, numbers(OUT, IN, seed=2))
        for number in range(20):
            y = numbers(N, OUT, seed=100 + number)
            step(model, optimizer, numbers(N, IN, seed=number), y)
        results.append(model.weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=1e-13)


def oracle(
    w: np.ndarray, rows: list[np.ndarray], grads: list[np.ndarray], params: dict[str, Any]
) -> np.ndarray:
    """The equations in numpy, P(C) by eigenvalues."""
    b1, b2 = params["dap_beta1"], params["dap_beta2"]
    m, v, b, average = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), None
    for t, (x, g) in enumerate(zip(rows, grads, strict=True), 1):
        c = x.T @ x / len(x)
        if params["ema_beta"]:
            old = c if average is None else average
            c = average = params["ema_beta"] * old + (1 - params["ema_beta"]) * c
        how = params["accelerated"]
        damping = params["damping"] + (0 if isinstance(how, bool) else how)
        c = c + damping * np.trace(c) / len(c) * np.eye(len(c))
        m, b = b1 * m + (1 - b1) * g, params["momentum"] * b + g
        if b1:
            n = m / (1 - b1**t)
            if params["nesterov"]:
                n = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            n = g + params["momentum"] * b if params["nesterov"] else b
        u = n / np.linalg.norm(c, 2) if params["scalar"] else n @ np.linalg.inv(c)
        if params["orthogonalize"]:
            left, _, right = np.linalg.svd(u, full_matrices=False)
            u = max(1, w.shape[0] / w.shape[1]) ** 0.5 * left @ right
        v = b2 * v + (1 - b2) * u**2
        o = u / (np.sqrt(v / (1 - b2**t)) + params["eps"]) if b2 else u
        if params["update_opnorm"]:
            o = o / np.linalg.norm(o, 2)
        elif params["update_norm"]:
            o = 0.2 * o / np.sqrt(np.mean(o**2))
        w = w - params["lr"] * params["weight_decay"] * w - params["lr"] * o
    return w


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 6)])
@pytest.mark.parametrize(
    "changes",
    [
        *VARIANTS.values(),
        {"nesterov": False, "dap_beta2": 0.0},
        {"dap_beta1": 0.0, "momentum": 0.9},
        {"dap_beta1": 0.0, "momentum": 0.9, "nesterov": False, "update_norm": True},
        {"ema_beta": 0.8, "weight_decay": 0.3},
        {"dap_beta2": 0.0, "orthogonalize": True, "polar": "svd"},
        {"update_opnorm": True, "update_norm": True},
    ],
)
def test_dap_equals_its_equations(shape: tuple[int, int], changes: dict[str, Any]) -> None:
    params = from_yaml("dap-ns-nadam", **{"lr": 0.02, "eps": 1e-3, "accelerated": True, **changes})
    model, optimizer = layer(params, numbers(*shape, seed=2))
    rows, grads = [], []
    for number in range(20):
        x, y = numbers(N, shape[1], seed=number), numbers(N, shape[0], seed=100 + number)
        step(model, optimizer, x, y)
        rows.append(x.numpy())
        grads.append(model.weight.grad.numpy().copy())
    expected = oracle(numbers(*shape, seed=2).numpy(), rows, grads, params)
    way = np.linalg.norm(expected - numbers(*shape, seed=2).numpy())
    # The iterations end at a residual of 1e-6, power iteration somewhat before; scaled by
    # |.|_2 that is all there is.
    by_power = changes.get("scalar") or changes.get("update_opnorm")
    error = np.linalg.norm(model.weight.detach().numpy() - expected) / way
    assert error < (0.02 if by_power else 1e-5)


def test_absolute_damping_that_broke_the_original_stays_finite() -> None:
    # Inputs of size 1e-3: C is 1e-6, and 1e-3 on top of it a thousand times the spectrum that
    # the iteration was scaled for. Relative to the trace it is 1e-9.
    x, y = 1e-3 * numbers(N, IN, seed=0), numbers(N, OUT, seed=1)
    params = from_yaml("dap-ns-nadam", lr=0.01)
    model, optimizer = layer(params, numbers(OUT, IN, seed=2))
    for _ in range(3):
        step(model, optimizer, x, y)
    assert model.weight.isfinite().all()


def test_a_refresh_keeps_the_inverse_and_still_follows_the_gradient() -> None:
    x, y, w = numbers(N, IN, seed=0), numbers(N, OUT, seed=1), numbers(OUT, IN, seed=2)
    params = from_yaml("dap-ns-nadam", **(ONE_STEP | {"lr": 0.5}), accelerated=True)
    always, model_always = layer(params, w)[::-1]
    seldom, model_seldom = layer(params | {"refresh_every": 4}, w)[::-1]
    counted = []
    for _ in range(6):
        counted.append(len(seldom.totals))
        step(model_always, always, x, y)
        step(model_seldom, seldom, x, y)
    # The inputs are the same at every step, so a kept inverse is as good as a new one.
    torch.testing.assert_close(model_seldom.weight, model_always.weight, rtol=1e-12, atol=0)
    assert counted == [2, 0, 0, 0, 2, 0]
    assert "inverse" in seldom.state_dict()["state"]["weight"]
    assert always.state_dict()["state"] == {}


def test_a_resume_between_refreshes_equals_not_stopping() -> None:
    params = from_yaml("dap-ns-nadam", refresh_every=3, ema_beta=0.5)
    whole, first, second = (layer(params, numbers(OUT, IN, seed=2)) for _ in range(3))

    def run(pair: Any, steps: range) -> None:
        for number in steps:
            step(*pair, numbers(N, IN, seed=number), numbers(N, OUT, seed=100 + number))

    run(whole, range(8))
    run(first, range(5))
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    run(second, range(5, 8))
    assert torch.equal(second[0].weight, whole[0].weight)


def test_the_two_presets_differ_in_the_iteration_alone() -> None:
    dap, accel = from_yaml("dap-ns-nadam"), from_yaml("dap-ns-nadam-accel")
    assert {key for key in dap if dap[key] != accel[key]} == {"name", "accelerated"}
    assert (dap["accelerated"], accel["accelerated"]) == (0.001, True)
