"""The second gradient, at the weights before the last step: what it is, costs and disturbs."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optim_toy import Toy, build, from_yaml, take_step
from tiny import end, marker, result, rows, signal_in_step, start, tiny

import gptopt
from gptopt import checkpoint, layout
from gptopt.config.identity import run_directory
from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.optim.checking import gym
from gptopt.optim.checking.contract import CHECKS, NotApplicableError
from gptopt.optim.checking.toy import ROLES, train
from gptopt.optim.mars import Mars
from gptopt.precision import Precision

MARS = "optimizer=mars"
EXACT = "optimizer.optimizer_params.exact=true"
AUX = {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}


def run(output: Path, *overrides: str) -> Path:
    return gptopt.train(tiny(output, MARS, EXACT, *overrides)).run


# --- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_exact_mars_keeps_its_promise(check: Callable[[Mapping[str, Any]], None]) -> None:
    try:
        check(from_yaml("mars", exact=True))
    except NotApplicableError as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("problem", gym.PROBLEMS)
def test_exact_mars_solves_the_toy_problems(problem: type[gym.Problem]) -> None:
    assert gym.play(problem, from_yaml("mars", exact=True)).solved


def test_exact_mars_equals_its_equations() -> None:
    # Two layers, 20 batches, gradients by hand: L = |A tanh(B x) - y|^2 / 2, a mean over rows.
    (b1, b2), gamma, eps, lr, wd = (0.9, 0.97), 0.3, 1e-8, 0.02, 0.1
    numbers = np.random.default_rng(0)
    first = {"A": numbers.normal(size=(3, 5)), "B": numbers.normal(size=(5, 4))}
    batches = [(numbers.normal(size=(6, 4)), numbers.normal(size=(6, 3))) for _ in range(20)]

    def slope(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        h = np.tanh(x @ w["B"].T)
        error = (h @ w["A"].T - y) / len(x)
        return {"A": error.T @ h, "B": (error @ w["A"] * (1 - h**2)).T @ x}

    w, last = dict(first), dict(first)
    m, v = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    for t, batch in enumerate(batches, 1):
        here, there = slope(w, *batch), slope(last, *batch)
        last = dict(w)
        for name in w:
            c = here[name] + gamma * b1 / (1 - b1) * (here[name] - there[name])
            c /= max(1, np.linalg.norm(c))
            m[name] = b1 * m[name] + (1 - b1) * c
            v[name] = b2 * v[name] + (1 - b2) * c**2
            u = m[name] / (1 - b1**t) / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            w[name] = w[name] - lr * (u + wd * w[name])

    params = from_yaml("mars", exact=True, lr=lr, betas=[b1, b2], gamma=gamma, eps=eps)
    ours = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in first.items()}
    optimizer = build_optimizer(params, ours.items(), dict.fromkeys(ours, "matrix"))

    def backward(x: np.ndarray, y: np.ndarray) -> None:
        out = torch.tanh(torch.tensor(x) @ ours["B"].mT) @ ours["A"].mT
        ((out - torch.tensor(y)).square().sum(1).mean() / 2).backward()

    for number, batch in enumerate(batches):
        assert optimizer.wants_earlier_gradient == (number > 0)
        if optimizer.wants_earlier_gradient:
            with optimizer.earlier_weights():
                backward(*batch)
        backward(*batch)
        optimizer.step()
        optimizer.forget()
        for weight in ours.values():
            weight.grad = None
    for name, weight in ours.items():
        way = np.linalg.norm(w[name] - first[name])
        assert np.linalg.norm(weight.detach().numpy() - w[name]) < 1e-12 * way


# --- the weights before the last step -----------------------------------------------------------


def test_all_parameters_hold_their_earlier_weights_also_those_of_aux() -> None:
    model = Toy()
    optimizer = build({**from_yaml("mars", exact=True), "aux": AUX}, model)
    before: dict[str, torch.Tensor] = {}
    for step in range(3):
        model.set_gradients(step)
        before = model.weights()
        take_step(model, optimizer)
    now = model.weights()
    with optimizer.earlier_weights():
        inside = model.weights()
    for name in ROLES:
        assert torch.equal(inside[name], before[name])
        assert torch.equal(model.weights()[name], now[name])
        assert not torch.equal(inside[name], now[name])


def test_one_that_had_no_gradient_in_the_last_step_was_where_it_is() -> None:
    model = Toy()
    optimizer = build(from_yaml("mars", exact=True), model)
    train(model, optimizer, range(4), {0: "wide", 3: "tall"})
    now = model.weights()
    with optimizer.earlier_weights():
        assert torch.equal(model.tall, now["tall"])
        assert not torch.equal(model.wide, now["wide"])


def test_a_step_without_the_second_gradient_is_refused() -> None:
    model = Toy()
    optimizer = build(from_yaml("mars", exact=True), model)
    train(model, optimizer, range(2))
    before = model.weights()
    with pytest.raises(RuntimeError, match="earlier_weights"):
        optimizer.step()
    assert all(torch.equal(before[name], weight) for name, weight in model.weights().items())


def _one_weight() -> tuple[torch.nn.Parameter, RoutedOptimizer]:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    params = from_yaml("mars", exact=True)
    optimizer = build_optimizer(params, [("w", weight)], {"w": "matrix"})
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    weight.grad = None
    return weight, optimizer


@pytest.mark.parametrize("overflown", ["earlier", "own", "none"])
def test_an_overflow_in_either_gradient_leaves_a_float16_step_out(overflown: str) -> None:
    weight, optimizer = _one_weight()
    precision = Precision(torch.device("cpu"), "float16")
    scale, seen = precision.scaler.get_scale(), []
    optimizer.rules[0].observe_earlier = lambda found: seen.extend(found.values())
    for owner in ("earlier", "own"):
        size = 1e38 if owner == overflown else 1.0  # times a scale of 65,536 it is infinite
        if owner == "earlier":
            with optimizer.earlier_weights():
                precision.backward((size * weight).sum())
                precision.unscale(optimizer.earlier)
        else:
            precision.backward((size * weight).sum())
            precision.unscale(optimizer)
    before = weight.detach().clone()
    precision.step(optimizer)
    if overflown != "earlier":
        assert torch.equal(seen[0], torch.ones(2, 2))
    assert torch.equal(weight, before) == (overflown != "none")
    assert precision.scaler.get_scale() == (scale if overflown == "none" else scale / 2)


# --- whole runs ---------------------------------------------------------------------------------


def test_a_second_gradient_of_no_strength_changes_no_row_and_no_weight(tmp_path: Path) -> None:
    # The run has dropout: neither its random numbers nor losses or norms know of the second pass.
    no_strength = "optimizer.optimizer_params.gamma=0.0"
    exact = run(tmp_path / "exact", no_strength)
    other = gptopt.train(tiny(tmp_path / "other", MARS, no_strength)).run
    assert marker(exact)["weights"] == marker(other)["weights"]
    without_size = [{**row, "optimizer_state_bytes": None} for row in rows(exact)]
    assert without_size == [{**row, "optimizer_state_bytes": None} for row in rows(other)]


def test_both_gradients_see_the_same_dropout_and_the_same_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps of 1e-30 move nothing that is not 0: both gradients are then the same to the bit.
    pairs = []
    direction = Mars.batch_direction

    def spy(self: Mars, params: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        pairs.extend((param.grad, self._earlier[param]) for param in params if self._earlier)
        return direction(self, params, *rest)

    monkeypatch.setattr(Mars, "batch_direction", spy)
    run(tmp_path, "optimizer.optimizer_params.lr=1e-30", "training.training_params.max_steps=4")
    assert len(pairs) > 30
    assert all(torch.equal(own, earlier) for own, earlier in pairs)


def test_each_gradient_is_clipped_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, observe = [], RoutedOptimizer.observe_earlier

    def spy(self: RoutedOptimizer, gradients: Mapping[torch.Tensor, torch.Tensor]) -> None:
        norms.append(torch.nn.utils.get_total_norm(gradients.values()).item())
        observe(self, gradients)

    monkeypatch.setattr(RoutedOptimizer, "observe_earlier", spy)
    run(tmp_path, "training.training_params.max_grad_norm=0.1")
    assert norms == pytest.approx([0.1] * 23, rel=1e-4)


def test_what_is_not_finite_at_the_earlier_weights_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap, calls = RoutedOptimizer.observe_earlier, []

    def spoil(self: RoutedOptimizer, gradients: Mapping[torch.Tensor, torch.Tensor]) -> None:
        calls.append(len(calls))
        if len(calls) == 5:  # in step 6: the first has no earlier weights
            next(iter(gradients.values())).view(-1)[0] = torch.inf
        swap(self, gradients)

    monkeypatch.setattr(RoutedOptimizer, "observe_earlier", spoil)
    ended = gptopt.train(tiny(tmp_path, MARS, EXACT, "training.training_params.nan_policy=stop"))
    assert (ended.state, ended.reason) == ("diverged", "step 6: gradient norm is nan")


def test_in_float16_a_run_follows_the_one_in_float32(tmp_path: Path) -> None:
    # Products are rounded to 2^-11 of themselves, about 5e-4.
    half = rows(run(tmp_path / "half", "training.training_params.dtype=float16"))
    full = rows(run(tmp_path / "full"))
    for name in ("train_loss", "val_loss"):
        found, expected = ([row[name] for row in all_ if name in row] for all_ in (half, full))
        assert found == pytest.approx(expected, rel=5e-4)
        assert found != expected


def test_a_run_killed_at_the_earlier_weights_goes_on_to_the_bit(tmp_path: Path) -> None:
    # Two forwards in step 1, four in each further: the 36th is the earlier pass of step 10.
    undisturbed, config = (tiny(tmp_path / name, MARS, EXACT) for name in ("whole", "killed"))
    killed = functools.partial(signal_in_step, 18, signal.SIGKILL)
    assert end(start(undisturbed)) == 0
    assert end(start(config, setup=killed)) == -signal.SIGKILL
    steps = layout.checkpoint_steps(run_directory(config))
    saved = checkpoint.load(layout.checkpoint_dir(run_directory(config), steps[-1])).state
    assert saved["progress"]["step"] == 8
    weight = "blocks.0.mlp.up.weight"
    earlier = saved["optimizer"]["state"][weight]["earlier_weight"]
    assert not torch.equal(earlier, saved["model"][weight])
    assert end(start(config)) == 0
    assert result(run_directory(config)) == result(run_directory(undisturbed))
