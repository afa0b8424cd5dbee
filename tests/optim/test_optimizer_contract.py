"""What every optimizer promises. A new Python and YAML file is picked up by itself.

The worked example of docs/adding-an-optimizer.md is held to the same. The promises themselves
are in gptopt/optim/checking/contract.py, for `gptopt optim check`; test_contract.py breaks each
of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optim_toy import from_yaml, read_params, runnable, write_docs_example

from gptopt.config.resolve import library_of
from gptopt.optim.checking import gym
from gptopt.optim.checking.contract import CHECKS, NotApplicableError

DOCS_EXAMPLE = "the example in docs"


@pytest.fixture(params=[*runnable(), DOCS_EXAMPLE])
def params(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    if request.param != DOCS_EXAMPLE:
        return from_yaml(request.param)
    files = write_docs_example(tmp_path)
    monkeypatch.setenv("GPTOPT_PLUGINS", str(tmp_path / "gptopt"))
    return next(read_params(file) for file in files if file.suffix == ".yaml")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_optimizer_keeps_its_promise(
    params: dict[str, Any], check: Callable[[dict[str, Any]], None]
) -> None:
    try:
        check(params)
    except NotApplicableError as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("problem", gym.PROBLEMS)
def test_every_optimizer_solves_the_toy_problems(
    params: dict[str, Any], problem: type[gym.Problem]
) -> None:
    assert gym.play(problem, params).solved


def test_nothing_imports_the_compiler() -> None:
    # It costs a second of every start; torch's own optimizers import it when constructed.
    names = [name for name in runnable() if not library_of(from_yaml(name)["name"])]
    code = f"""
import copy, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from optim_toy import Toy, build, from_yaml, take_step
for name in {names}:
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
