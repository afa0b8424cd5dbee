"""What a look at a run from outside finds."""

import json
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.dispatch.watch import Glimpse, glimpse


def write_run(run: Path, status, metrics):
    run.mkdir()
    (run / layout.STATUS).write_text(json.dumps(status))
    layout.metrics_file(run, 1).write_text('{"event": "train", "step": 1, "train_loss": 9}\n')
    layout.metrics_file(run, 2).write_text(metrics)


@pytest.mark.parametrize(
    ("metrics", "seen"),
    [
        ('{"event": "train", "step": 30, "train_loss": 2.5}\n', Glimpse(30, 40, 2.5)),
        (
            '{"event": "train", "step": 30, "train_loss": 2.5}\n{"event": "eval", "st',
            Glimpse(30, 40, 2.5),
        ),
        ('{"event": "start", "attempt": 2}\n', Glimpse(20, 40, None)),
        ("x" * 10_000, Glimpse(20, 40, None)),
    ],
)
def test_a_look_at_a_run_finds_its_step_and_loss(tmp_path, metrics, seen):
    write_run(tmp_path / "run", {"step": 20, "max_steps": 40}, metrics)
    assert glimpse(tmp_path / "run") == seen


def test_a_look_at_a_run_that_is_not_there_yet_finds_nothing(tmp_path):
    assert glimpse(tmp_path / "nowhere") == Glimpse(0, None, None)
