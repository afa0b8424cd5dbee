"""run_hydra.py as people meet it: quick answers, exit codes. What it must not import is told in
test_imports.py."""

import re
import subprocess
import sys

import pytest
import yaml

from gptopt.layout import ENTRY
from gptopt.state import ExitCode

TINY = [
    "model.config.n_layer=1",
    "model.config.n_embd=32",
    "model.config.n_head=2",
    "data=grammar",
    "data.tokens=40000",
    "data.val_split=2000",
    "logging.logging_params.eval_tokens=1024",
    "training.training_params.max_steps=3",
    "checkpoint.save_final=false",
]


def start(folder, *arguments):
    """run_hydra.py as a process in ``folder``."""
    command = [sys.executable, str(ENTRY), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["model=gpt2", "--cfg", "job"], ["--cfg", "job", "--resolve"]],
)
def test_questions_leave_nothing_behind(arguments, tmp_path):
    answer = start(tmp_path, *arguments)
    assert answer.returncode == 0, answer.stderr
    assert not list(tmp_path.iterdir())


def test_help_names_the_groups_the_results_and_every_exit_code(tmp_path):
    text = start(tmp_path, "--help").stdout
    for words in (
        "optimizer: ",
        "muon",
        "experiment: debug",
        "outputs/<model>/<dataset>/<optimizer>/",
    ):
        assert words in text
    for code in ExitCode:
        assert re.search(rf"\b{int(code)} [a-z]", text), code


def test_a_run_ends_with_0_and_again_with_0_without_touching_a_file(tmp_path):
    assert start(tmp_path, *TINY).returncode == 0
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = start(tmp_path, *TINY)
    assert again.returncode == 0
    assert "completed before; nothing to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_a_sweep_links_its_runs_and_one_that_fails_takes_no_other_with_it(tmp_path):
    crash = [
        "training.training_params.nan_policy=raise",
        "optimizer.optimizer_params.lr=1e30,0.001",
    ]
    answer = start(tmp_path, "-m", *TINY, *crash)
    assert answer.returncode == 1
    assert "ended with exit code 1" in answer.stderr
    links = sorted(path.name for path in tmp_path.glob("multirun/*/*/*") if path.is_symlink())
    assert links == ["0", "1"]
    assert len(list(tmp_path.glob("outputs/**/completed.json"))) == 1


def test_a_sweep_over_optimizers_takes_a_value_of_a_key_that_the_default_one_lacks(tmp_path):
    # adamw, the default, has neither aux nor momentum
    params = "optimizer.optimizer_params"
    ended = start(
        tmp_path,
        *TINY,
        "-m",
        "optimizer=muon,normuon",
        f"{params}.aux.betas=[0.8,0.9]",
        f"{params}.momentum=0.9,0.8",
        "model.config.n_layer=2",
    )
    assert ended.returncode == 0, ended.stderr
    found = [
        yaml.safe_load(path.read_text())
        for path in sorted(tmp_path.glob("outputs/*/*/*/*/resolved.yaml"))
    ]
    asked = sorted(
        (p["name"], p["momentum"], *p["aux"]["betas"])
        for p in (config["optimizer"]["optimizer_params"] for config in found)
    )
    assert asked == [
        (name, momentum, 0.8, 0.9) for name in ("muon", "normuon") for momentum in (0.8, 0.9)
    ]


@pytest.mark.parametrize("flags", [["-m"], ["--multirun"]])
def test_overrides_may_stand_on_both_sides_of_a_flag(flags, tmp_path):
    ended = start(tmp_path, *TINY, *flags, "training.training_params.seed=0,1")
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.glob("outputs/*/*/*/*/completed.json"))) == 2


def test_a_flag_that_there_is_not_is_still_named(tmp_path):
    ended = start(tmp_path, *TINY, "--mulitrun", "training.training_params.seed=0,1")
    assert ended.returncode == 2
    assert "unrecognized arguments: --mulitrun" in ended.stderr
    assert not list(tmp_path.iterdir())
