"""What every optimizer promises. A new Python and YAML file is picked up by itself.

The worked example of docs/adding-an-optimizer.md is held to the same.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from optim_toy import (
    ROLES,
    Toy,
    build,
    from_yaml,
    read_params,
    runnable,
    take_step,
    write_docs_example,
)

from gptopt.config.resolve import find_part, keys_of
from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.optim.routing import COMMON

DOCS_EXAMPLE = "the example in docs"
SCHEDULE = [1.0, 0.5, 0.25, 0.75, 0.6, 0.4, 0.2, 0.1]


@pytest.fixture(params=[*runnable(), DOCS_EXAMPLE])
def params(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    if request.param != DOCS_EXAMPLE:
        return from_yaml(request.param)
    files = write_docs_example(tmp_path)
    monkeypatch.setenv("GPTOPT_PLUGINS", str(tmp_path / "gptopt"))
    return next(read_params(file) for file in files if file.suffix == ".yaml")


NO_GAPS: dict[int, str] = {}
GAPS = {0: "square_1", 2: "square_2"}  # step: parameter without a gradient in it


def train(
    model: Toy, optimizer: RoutedOptimizer, steps: range, gaps: dict[int, str] = NO_GAPS
) -> None:
    """Steps as a training loop does, along a schedule."""
    for step in steps:
        model.set_gradients(step, without=[gaps.get(step, "")])
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * SCHEDULE[step]
        take_step(model, optimizer)


def assert_same_weights(one: Toy, other: Toy) -> None:
    others = dict(other.named_parameters())
    differing = [n for n, p in one.named_parameters() if not torch.equal(p, others[n])]
    assert differing == []


def test_the_yaml_lists_exactly_the_keys_of_build(params: dict[str, Any]) -> None:
    file = find_part("optim", params["name"])
    assert file is not None
    assert keys_of(file).keys() == params.keys() - set(COMMON)
    assert {"name", "no_decay"} <= params.keys()


def test_the_same_gradients_give_the_same_weights(params: dict[str, Any]) -> None:
    one, other = Toy(), Toy()
    for model in (one, other):
        train(model, build(params, model), range(5))
    assert_same_weights(one, other)


@pytest.mark.parametrize("gaps", [NO_GAPS, GAPS])
@pytest.mark.parametrize("saved_after", [1, 3, 5])
def test_resuming_equals_not_stopping(
    params: dict[str, Any], tmp_path: Path, saved_after: int, gaps: dict[int, str]
) -> None:
    undisturbed, stopped, resumed = Toy(), Toy(), Toy()
    train(undisturbed, build(params, undisturbed), range(8), gaps)
    optimizer = build(params, stopped)
    train(stopped, optimizer, range(saved_after), gaps)
    saved = {"model": stopped.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "state.pt")
    train(stopped, optimizer, range(saved_after, 8), gaps)
    assert_same_weights(stopped, undisturbed)

    fresh = build(params, resumed)
    for model, state in ((resumed, fresh), (stopped, optimizer)):  # a new start, a way back
        loaded = torch.load(tmp_path / "state.pt", weights_only=True)
        model.load_state_dict(loaded["model"])
        state.load_state_dict(loaded["optimizer"])
        train(model, state, range(saved_after, 8), gaps)
        assert_same_weights(model, undisturbed)


def test_a_batch_moves_its_members_as_if_they_were_alone(params: dict[str, Any]) -> None:
    together, alone = Toy(), Toy()
    optimizer = build(params, together)
    if any(getattr(rule, "joint", False) for rule in optimizer.rules):
        pytest.skip("its step is one for all parameters")
    train(together, optimizer, range(5), GAPS)
    for name in ("square_1", "square_2", "wide"):
        weight = getattr(alone, name)
        train(alone, build(params, alone, [name]), range(5), GAPS)
        # Products of batches may be summed in another order than those of one matrix.
        torch.testing.assert_close(weight, getattr(together, name), rtol=1e-4, atol=1e-5)


def test_zero_gradients_leave_nothing_but_decay(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer, before = build(params, model), model.weights()
    for _ in range(3):
        for param in model.parameters():
            param.grad = torch.zeros_like(param)
        take_step(model, optimizer)
    for row in optimizer.table:
        kept = (1 - row["lr"] * row["weight_decay"]) ** 3
        torch.testing.assert_close(getattr(model, row["name"]).data, kept * before[row["name"]])


def test_gradients_are_left_untouched(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer = build(params, model)
    for step in range(2):
        model.set_gradients(step)
        before = {name: param.grad.clone() for name, param in model.named_parameters()}
        take_step(model, optimizer)
        for name, param in model.named_parameters():
            assert torch.equal(param.grad, before[name])


def test_a_quadratic_goes_down_in_every_parameter(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer, before = build(params, model), model.losses()
    for step in range(40):
        model.set_gradients(step)
        take_step(model, optimizer)
    after = model.losses()
    assert {name: after[name] < before[name] for name in before} == dict.fromkeys(before, True)


def test_every_parameter_is_in_one_group_and_tied_weights_count_once(
    params: dict[str, Any],
) -> None:
    model = Toy()
    model.tied = model.embedding
    names = model.named_parameters(remove_duplicate=False)
    optimizer = build_optimizer(params, names, ROLES)
    grouped = [id(param) for group in optimizer.param_groups for param in group["params"]]
    assert sorted(grouped) == sorted(id(param) for param in model.parameters())
    assert [row["name"] for row in optimizer.table] == list(ROLES)
    assert sum(row["numel"] for row in optimizer.table) == sum(
        p.numel() for p in Toy().parameters()
    )


def test_a_parameter_without_gradient_is_left_alone(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer, before = build(params, model), model.weights()
    left_out = ["square_2", "gain", "head"]
    for step in range(3):
        model.set_gradients(step, without=left_out)
        take_step(model, optimizer)
    after = model.weights()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == [name for name in before if name not in left_out]
    assert optimizer.state_dict()["state"].keys() <= set(moved)


def test_the_learning_rate_of_the_group_is_the_one_used(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer, before = build(params, model), model.weights()
    for multiplier in (0.0, 0.5):
        model.set_gradients(0)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
        take_step(model, optimizer)
        unmoved = [n for n, weight in model.weights().items() if torch.equal(weight, before[n])]
        assert unmoved == ([] if multiplier else list(before))


def test_state_of_other_parameters_is_refused(params: dict[str, Any]) -> None:
    model = Toy()
    optimizer = build(params, model)
    train(model, optimizer, range(2))
    before = copy.deepcopy(optimizer.state_dict())
    renamed = copy.deepcopy(before)
    for group in renamed["param_groups"]:
        group["params"] = [name.replace("tall", "high") for name in group["params"]]
    with pytest.raises(ValueError, match="'high'.*'tall'"):
        optimizer.load_state_dict(renamed)
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]


def test_a_load_keeps_the_settings_of_the_config(params: dict[str, Any]) -> None:
    model = Toy()
    saving = build(params, model)
    train(model, saving, range(2))
    optimizer = build(params | {"lr": 0.5, "weight_decay": 0.25}, model)
    optimizer.load_state_dict(copy.deepcopy(saving.state_dict()))
    first, saved = optimizer.param_groups[0], saving.param_groups[0]
    assert (first["lr"], first["initial_lr"], first["weight_decay"]) == (0.5, 0.5, 0.25)
    assert first.get("step") == saved.get("step")


def test_nothing_imports_the_compiler() -> None:
    # It costs a second of every start; torch's own optimizers import it when constructed.
    code = f"""
import copy, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from optim_toy import Toy, build, from_yaml, runnable, take_step
for name in runnable():
    model = Toy()
    optimizer = build(from_yaml(name), model)
    model.set_gradients(0)
    take_step(model, optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_step(model, optimizer)
assert "torch._dynamo" not in sys.modules
torch.optim.SGD(Toy().parameters())
assert "torch._dynamo" in sys.modules, "torch no longer imports it: PlainOptimizer can go"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
