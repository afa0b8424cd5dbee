"""docs/adding-an-optimizer.md, taken at its word. Its optimizer also runs the contract tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from optim_toy import DOCS, read_params, write_docs_example

from gptopt.config.compose import compose
from gptopt.config.problems import ConfigError
from gptopt.layout import HYDRA_CONF
from gptopt.optim import build_optimizer


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config tree with the example's YAML in it; its Python file is found as a plugin."""
    shutil.copytree(HYDRA_CONF, tmp_path / "hydra_conf")
    files = write_docs_example(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "gptopt/optim/nsgd.py",
        "hydra_conf/optimizer/nsgd.yaml",
    ]
    monkeypatch.setenv("GPTOPT_PLUGINS", str(tmp_path / "gptopt"))
    return tmp_path / "hydra_conf"


def test_the_example_composes_with_overrides(conf: Path) -> None:
    config = compose(["optimizer=nsgd", "optimizer.optimizer_params.lr=3e-2"], config_dir=conf)
    assert config.optimizer.optimizer_params["lr"] == 3e-2
    assert config.optimizer.optimizer_params["name"] == "nsgd"


def test_the_message_in_the_docs_is_the_one_given(conf: Path) -> None:
    override = "optimizer.optimizer_params.momentum=1.5"
    with pytest.raises(ConfigError) as error:
        compose(["optimizer=nsgd", override], config_dir=conf)
    message = next(line for line in DOCS.read_text("utf-8").splitlines() if override in line)
    assert message in str(error.value)


def test_the_example_steps_along_its_momentum_of_length_one(conf: Path) -> None:
    params = read_params(conf / "optimizer" / "nsgd.yaml")
    params |= {"lr": 0.1, "momentum": 0.75, "weight_decay": 0.0}
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer(params, [("weight", weight)], {"weight": "vector"})
    # M = G / 4 = (-3, 0, 4) has length 5, and so has then 0.75 M + G / 4 = (0, 3, 4).
    weight.grad = torch.tensor([-12.0, 0.0, 16.0])
    optimizer.step()
    weight.grad = torch.tensor([9.0, 12.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([0.06, -0.06, -0.16]))


def test_the_table_of_tied_rates_is_that_of_the_yaml_files() -> None:
    rows = re.findall(
        r"^\| ((?:not )?tied)\b.*? \| (`.*`) \|$", DOCS.read_text("utf-8"), re.MULTILINE
    )
    told = {name: tied for tied, names in rows for name in re.findall(r"`([\w-]+)`", names)}
    files = {file.stem: file for file in (HYDRA_CONF / "optimizer").glob("*.yaml")}
    params = {name: yaml.safe_load(f.read_text())["optimizer_params"] for name, f in files.items()}
    rates = {name: node["aux"]["lr"] for name, node in params.items() if "aux" in node}
    assert told == {n: "tied" if rate == "${..lr}" else "not tied" for n, rate in rates.items()}


def test_a_rate_is_tied_as_the_page_says() -> None:
    rate = "optimizer.optimizer_params"
    config = compose(["optimizer=soap", f"{rate}.lr=0.004", f"{rate}.aux.lr='${{..lr}}'"])
    assert config.optimizer.optimizer_params["aux"]["lr"] == 0.004
