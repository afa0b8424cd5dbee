"""What rules may ask for beside gradients: nothing when unused, and whole runs that use it."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest
import torch
from optim_toy import Toy, build, from_yaml, runnable, take_step
from tiny import checkpoints, end, marker, result, signal_in_step, start, tiny

import gptopt
from gptopt import checkpoint, layout
from gptopt.config.identity import run_directory

ALL = "checkpoint.keep_last=99"
REPRESENTATIVES = [  # of each thing that a rule may ask for, and of the bridge
    ("dap-ns-nadam", ("refresh_every=3",)),  # inputs of layers; killed between two refreshes
    ("newton-muon", ("refresh_every=3", "ema_beta=0.5")),
    ("muonmax-momo", ("truncate_loss=1.0",)),  # the loss
    ("mars", ("exact=true",)),  # a second gradient
    ("schedule-free-adamw", ()),  # other weights to evaluate
    ("kron", ("flat_steps=4", "fall_steps=4")),  # random numbers
    ("lamb", ()),  # a library's class
]


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "normuon"])
def test_a_rule_that_asks_for_nothing_leaves_no_trace(name: str) -> None:
    model = Toy()
    optimizer = build(from_yaml(name), model)
    assert not optimizer.wants_loss
    assert not optimizer.has_eval_weights
    assert optimizer.totals == []
    assert not optimizer.wants_earlier_gradient
    assert all(not module._forward_pre_hooks for module in model.modules())
    before = model.weights()
    with optimizer.eval_weights():
        inside = model.weights()
    assert all(torch.equal(before[key], inside[key]) for key in before)
    model.set_gradients(0)
    take_step(model, optimizer)
    assert not optimizer.wants_earlier_gradient
    assert optimizer.earlier.weights == {}


@pytest.mark.parametrize("name", ["dap-ns-nadam", "muonmax-momo", "schedule-free-adamw"])
def test_a_rule_that_asks_says_so(name: str) -> None:
    model = Toy()
    optimizer = build(from_yaml(name), model)
    hooked = {key for key, layer in model.layers.items() if layer._forward_pre_hooks}
    assert optimizer.wants_loss == (name == "muonmax-momo")
    assert optimizer.has_eval_weights == (name == "schedule-free-adamw")
    assert len(optimizer.totals) == 2 * len(hooked)
    assert hooked == (set(model.layers) if name == "dap-ns-nadam" else set())


@pytest.mark.parametrize(
    ("name", "changes"),
    [*REPRESENTATIVES, *(pytest.param(name, (), marks=pytest.mark.slow) for name in runnable())],
)
def test_a_killed_run_goes_on_to_the_bit(
    tmp_path: Path, name: str, changes: tuple[str, ...]
) -> None:
    if name not in runnable():
        pytest.skip("its library is not installed")
    settings = [f"optimizer={name}", *(f"optimizer.optimizer_params.{key}" for key in changes)]
    whole = gptopt.train(tiny(tmp_path / "whole", *settings)).run
    killed = tiny(tmp_path / "killed", *settings)
    die = functools.partial(signal_in_step, 11, signal.SIGKILL)
    assert end(start(killed, setup=die)) == -signal.SIGKILL
    assert checkpoints(run_directory(killed))  # it goes on from one, not from the start
    assert end(start(killed)) == 0
    assert result(run_directory(killed)) == result(whole)


def test_checkpoints_hold_the_weights_in_training_and_those_to_evaluate(tmp_path: Path) -> None:
    settings = ("optimizer=schedule-free-adamw", ALL)
    whole = gptopt.train(tiny(tmp_path / "whole", *settings)).run
    path = layout.checkpoint_dir(whole, 8)
    saved = checkpoint.load(path).state
    weight = "blocks.0.mlp.up.weight"
    assert torch.equal(saved["eval_model"][weight], saved["optimizer"]["state"][weight]["x"])
    assert not torch.equal(saved["eval_model"][weight], saved["model"][weight])
    resumed = gptopt.train(tiny(tmp_path / "resumed", *settings, f"checkpoint.resume={path}")).run
    assert marker(resumed)["weights"] == marker(whole)["weights"]


def test_other_checkpoints_hold_no_second_copy(tmp_path: Path) -> None:
    run = gptopt.train(tiny(tmp_path, "optimizer=muon", ALL)).run
    assert checkpoint.load(layout.checkpoint_dir(run, 8)).state["eval_model"] is None
