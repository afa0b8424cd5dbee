from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path

from gptopt.results import Runs
from gptopt.results.repeat import sweep_file
from gptopt.sweep.plan import plan


def test_planning_the_sweep_file_of_a_report_gives_the_same_runs(
    real: Runs, tmp_path: Path
) -> None:
    text, unsaid = sweep_file(real.runs["overrides"])
    file = tmp_path / "repeat.json"
    file.write_text(text)
    planned = plan(file, [f"paths.output_dir={tmp_path}"], max_runs=100)
    assert unsaid == []
    # an eighth of the identity ends every name
    assert Counter(run.run.name[-8:] for run in planned.runs) == Counter(
        real.runs["run_id"].str[:8]
    )


def test_a_grid_is_written_as_its_lists() -> None:
    runs = [
        f"optimizer=adamw optimizer.optimizer_params.lr={lr} training.training_params.seed={seed}"
        for lr in ("1e-3", "0.003")
        for seed in (0, 1)
    ]
    text, _ = sweep_file([*runs, runs[0]])
    assert json.loads(text) == {
        "optimizer": "adamw",
        "optimizer.optimizer_params.lr": [0.001, 0.003],
        "training.training_params.seed": [0, 1],
    }


def test_what_only_some_runs_have_makes_a_block() -> None:
    text, _ = sweep_file(["optimizer=muon lr_scheduler=wsd", "optimizer=soap lr_scheduler=wsd a=1"])
    assert json.loads(text) == {
        "lr_scheduler": "wsd",
        "$each": [{"optimizer": "muon"}, {"optimizer": "soap", "a": 1}],
    }


def test_values_keep_their_kinds_and_a_list_as_a_value_is_nested() -> None:
    given = ["a=true", "b=null", "c=[0.9,0.95]", "d='it is'", "e=1", "f=1.0", "+logging=wandb"]
    text, _ = sweep_file([shlex.join(given)])
    assert json.loads(text) == {
        "a": True,
        "b": None,
        "c": [[0.9, 0.95]],
        "d": "it is",
        "e": 1,
        "f": 1.0,
        "+logging": "wandb",
    }


def test_where_a_run_lay_is_left_out_and_what_cannot_be_said_is_told() -> None:
    runs = [
        "lr=1 paths.output_dir=/x cluster=slurm cluster.threads=2",
        "~logging.trackers",
        "a={b:1}",
    ]
    text, unsaid = sweep_file(runs)
    assert json.loads(text) == {"lr": 1}
    assert unsaid == runs[1:]
    assert sweep_file([]) == ("", [])
