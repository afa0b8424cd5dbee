from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.results import load
from gptopt.results.diff import diff
from gptopt.results.show import show

from .rivals import write_rival
from .rundirs import PROVENANCE, configure, eval_row, start_row, train_row, write_run


def differences(a: Path, b: Path) -> str:
    return "\n".join(diff(load(a), load(b)))


def test_two_starts_of_one_run_that_agree_to_the_last_bit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [start_row(1, 0), train_row(10, 5.0), eval_row(20, 4.0)]
        write_run(tmp_path / name, configure("adamw", 0.001, 0), [rows])
    said = differences(tmp_path / "a", tmp_path / "b")
    for chapter in ("settings", "code", "environment", "starting point"):
        assert f"{chapter}: the same" in said
    assert "train_loss: equal to the last bit at all 1 steps" in said
    assert "val_loss: equal to the last bit at all 1 steps" in said


def test_the_first_step_that_differs_is_found_where_both_measured(tmp_path: Path) -> None:
    one = [start_row(1, 0), *(train_row(step, 5.0) for step in (10, 20, 30, 40))]
    other = [
        start_row(1, 0),
        *(train_row(step, 5.0) for step in (10, 30)),
        train_row(40, 5.0 + 1e-15),
    ]
    write_run(tmp_path / "a", configure("adamw", 0.001, 0), [one])
    write_run(tmp_path / "b", configure("adamw", 0.001, 0), [other])
    said = differences(tmp_path / "a", tmp_path / "b")
    assert "train_loss: first differs at step 40" in said
    assert "val_loss: no step that both measured" in said


def test_every_chapter_names_what_differs(tmp_path: Path) -> None:
    rows = [start_row(1, 0), train_row(10, 5.0)]
    other = {
        "git": {"commit": "fedc", "dirty": True},
        "threads": 4,
        "fingerprints": PROVENANCE["fingerprints"] | {"init_weights": "w2"},
    }
    write_run(tmp_path / "a", configure("adamw", 0.001, 0), [rows])
    write_run(tmp_path / "b", configure("muon", 0.02, 0), [rows], provenance=other)
    said = differences(tmp_path / "a", tmp_path / "b")
    assert "optimizer.optimizer_params.lr: 0.001 | 0.02" in said
    assert "run.git.commit: 0123456789abcdef | fedc" in said
    assert "run.threads: 1 | 4" in said
    assert "run.fingerprints.init_weights: w1 | w2" in said


def test_a_run_on_one_page(tmp_path: Path) -> None:
    (run,) = write_rival(tmp_path, "muon", {0.02: [2.05]})
    known = json.loads((run / layout.PROVENANCE).read_text())
    tensor = {"lr": 0.02, "weight_decay": 0.1}
    known["parameters"]["table"] = [
        {"name": "q", "rule": "muon", "role": "matrix", "numel": 9216, **tensor},
        {"name": "k", "rule": "muon", "role": "matrix", "numel": 9216, **tensor},
        {"name": "e", "rule": "adamw", "role": "embedding", "numel": 24576, **tensor},
    ]
    (run / layout.PROVENANCE).write_text(json.dumps(known))
    said = "\n".join(show(load(run)))
    assert "completed: it completed, step 200 of 200, 1 attempt(s)" in said
    assert "validation loss: last 2.0500, best 2.0500 at step 200" in said
    assert "  optimizer='muon'\n" in said
    assert "output_dir" not in said
    assert "muon drives 18,432 matrix parameters in 2 tensors, lr 0.02, weight_decay 0.1" in said
    assert "fingerprints.eval: e1" in said


@pytest.mark.parametrize("content", ["", "[]", '{"parameters": {"table": [1]}}'])
def test_a_run_without_a_table_of_parameters_is_shown_all_the_same(
    tmp_path: Path, content: str
) -> None:
    (run,) = write_rival(tmp_path, "muon", {0.02: [2.05]}, state="interrupted")
    (run / layout.PROVENANCE).write_text(content)
    assert "interrupted" in "\n".join(show(load(run)))
