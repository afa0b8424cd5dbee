"""Optimizers from outside: a directory of one's own, or an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from optim_toy import write_docs_example
from tiny import stopped_at, tiny

import gptopt
from gptopt import layout
from gptopt.cli import main
from gptopt.config import resolve
from gptopt.config.compose import compose
from gptopt.config.problems import ConfigError
from gptopt.layout import ENTRY, HYDRA_CONF, PROJECT
from gptopt.source import optimizer_code

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "stranger"
version = "0.1"
[project.entry-points."gptopt.optimizers"]
stranger = "stranger"
[tool.setuptools]
packages = ["stranger", "stranger.optim"]
[tool.setuptools.package-data]
stranger = ["hydra_conf/*/*.yaml"]
"""
SMALL = (
    "data=grammar",
    "data.tokens=20000",
    "data.val_split=2000",
    "training.training_params.max_steps=2",
    "training.training_params.context_length=32",
    "training.training_params.batch_size=2",
    "logging.logging_params.eval_tokens=500",
)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plugin with the optimizer of the docs."""
    write_docs_example(tmp_path)
    (tmp_path / "gptopt").rename(tmp_path / "stranger")
    (tmp_path / "hydra_conf").rename(tmp_path / "stranger" / "hydra_conf")
    return tmp_path / "stranger"


@pytest.fixture
def installed(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:  # fmt: skip
    """The same, as pip would leave it: a package whose import fails, and its metadata."""
    (plugin / "__init__.py").write_text("raise ImportError('nobody needs to import me')\n")
    info = tmp_path / "stranger-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[gptopt.optimizers]\nstranger = stranger\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    resolve._installed_plugins.cache_clear()
    yield plugin
    resolve._installed_plugins.cache_clear()


def test_a_directory_brings_an_optimizer_with_its_settings(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"there is no hydra_conf/optimizer/nsgd.yaml"):
        compose(["optimizer=nsgd"])
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    params = compose(["optimizer=nsgd", "optimizer.optimizer_params.lr=3e-2"]).optimizer
    assert params.optimizer_params == {
        "name": "nsgd",
        "lr": 0.03,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "no_decay": ["vector"],
    }
    with pytest.raises(ConfigError, match="momentum=1.5: it takes a number at least 0 and below 1"):
        compose(["optimizer=nsgd", "optimizer.optimizer_params.momentum=1.5"])


def test_an_installed_package_brings_one_without_being_imported(installed: Path) -> None:
    assert installed in resolve.plugin_directories()
    assert compose(["optimizer=nsgd"]).optimizer.optimizer_params["name"] == "nsgd"
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("name", ["optim/muon.py", "hydra_conf/optimizer/adamw.yaml"])
def test_a_name_of_ours_cannot_be_taken(
    plugin: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plugin / name).write_text("")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    ours = HYDRA_CONF.parent / name if name.startswith("hydra_conf") else resolve.PACKAGE / name
    with pytest.raises(ConfigError) as error:
        compose([])
    assert f"{plugin / name} has the name of {ours}" in str(error.value)


def test_two_plugins_cannot_share_a_name(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "optim").mkdir(parents=True)
    (tmp_path / "other" / "optim" / "nsgd.py").write_text("")
    listed = os.pathsep.join([str(plugin), str(tmp_path / "other")])
    monkeypatch.setenv("GPTOPT_PLUGINS", listed)
    with pytest.raises(ConfigError, match=r"other/optim/nsgd.py has the name of .*stranger/optim"):
        compose(["optimizer=nsgd"])


def test_a_directory_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTOPT_PLUGINS", "/nowhere/at/all")
    with pytest.raises(ConfigError, match="GPTOPT_PLUGINS names /nowhere/at/all, which is no"):
        compose([])
    for words in (["list"], ["show", "muon"], ["check", "muon"]):
        answer = CliRunner().invoke(main, ["optim", *words])
        assert answer.exit_code == 2
        assert "/nowhere/at/all, which is no directory" in answer.output


def test_its_file_is_on_record(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    file = plugin / "optim" / "nsgd.py"
    before = optimizer_code("nsgd")
    assert before == {"file": str(file), "sha256": sha256sum(file)}
    file.write_text(file.read_text("utf-8") + "# another\n", "utf-8")
    assert optimizer_code("nsgd") == {"file": str(file), "sha256": sha256sum(file)} != before
    assert optimizer_code("muon") == {}


def test_the_package_that_brought_it_is_on_record(installed: Path) -> None:
    found = optimizer_code("nsgd")
    assert found["sha256"] == sha256sum(installed / "optim" / "nsgd.py")
    assert (found["distribution"], found["version"]) == ("stranger", "0.1")


def test_the_version_of_a_library_is_on_record() -> None:
    library = pytest.importorskip("prodigyopt")
    assert optimizer_code("prodigyopt.Prodigy") == {
        "distribution": "prodigyopt",
        "version": metadata.version(library.__name__),
    }


def test_a_run_goes_on_with_other_code_and_says_so(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    file = plugin / "optim" / "nsgd.py"
    config = tiny(tmp_path, "optimizer=nsgd")
    directory = stopped_at(config, 9)
    before = sha256sum(file)
    recorded = json.loads((directory / layout.PROVENANCE).read_text("utf-8"))
    assert recorded["optimizer_code"] == {"file": str(file), "sha256": before}
    file.write_text(file.read_text("utf-8") + "# another\n", "utf-8")
    gptopt.train(config)
    said = (directory / layout.TASK_LOG).read_text("utf-8")
    assert f"not bit-exact: code of nsgd {before} -> {sha256sum(file)}" in said


def sha256sum(file: Path) -> str:
    done = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "GPTOPT_PLUGINS"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("form", ["package", "directory"])
def test_it_is_trained_swept_and_checked(plugin: Path, tmp_path: Path, form: str) -> None:
    if form == "package":
        (plugin / "__init__.py").touch()
        (plugin / "optim" / "__init__.py").touch()
        (tmp_path / "pyproject.toml").write_text(PYPROJECT)
        target = tmp_path / "site"
        run("-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", target,
            tmp_path, cwd=tmp_path)  # fmt: skip
        environment = {"PYTHONPATH": str(target)}
    else:
        environment = {"GPTOPT_PLUGINS": str(plugin)}
    work = tmp_path / "work"
    work.mkdir()
    run(ENTRY, "optimizer=nsgd", *SMALL, cwd=work, **environment)
    run(ENTRY, "-m", "optimizer=nsgd,lion", "optimizer.optimizer_params.lr=0.02", *SMALL,
        cwd=work, **environment)  # fmt: skip
    (work / "s.json").write_text(json.dumps({"optimizer": ["nsgd", "sgd"], "lr": [0.1, 0.3]}))
    run("-m", "gptopt.cli", "sweep", "submit", "s.json", "--via", "local", *SMALL,
        cwd=work, **environment)  # fmt: skip
    completed = list((work / "outputs").glob("*/*/nsgd/*/completed.json"))
    assert len(completed) == 3  # lr 0.1, from the first and again in the sweep; 0.02; 0.3
    snapshot = work / "logs/s/run_info_1/conf/optimizer/nsgd.yaml"
    assert snapshot.read_text() == (plugin / "hydra_conf/optimizer/nsgd.yaml").read_text()
    said = run("-m", "gptopt.cli", "optim", "check", "nsgd", cwd=work, **environment)
    assert "nothing failed" in said
    assert PROJECT not in work.parents
