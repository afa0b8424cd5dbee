"""Each log is written as its program's source describes it, then read through ``load``."""

from __future__ import annotations

import csv
import json
import math
import struct
from pathlib import Path

import pytest

from gptopt.results import Runs, load
from gptopt.results.importers import FORMATS, import_runs

KNOWN = {
    "model.name": "gpt2",
    "data.name": "fineweb",
    "optimizer.optimizer_params.name": "muon",
    "training.training_params.seed": 3,
}


def imported(kind: str, path: Path, out: Path) -> Runs:
    found = import_runs(kind, path, out, settings=KNOWN)
    assert found.problems.empty
    assert len(load(out).runs) == len(found.runs)
    return found


def curve(runs: Runs, name: str) -> list[tuple[int, float]]:
    rows = runs.metrics.dropna(subset=[name])
    return list(zip(rows["step"], rows[name], strict=True))


def test_gpt_opt(tmp_path: Path) -> None:
    log = {
        "losses": [5.0, 4.0, 3.5],
        "val_losses": [4.2, 3.6],
        "learning_rates": [0.01, 0.1, 0.02, 0.2, 0.0, 0.0],  # two groups a step
        "grad_norms": [1.0, 0.9, 0.8],
        "step_times": [2.0, 1.0, 1.0],
        "name": "muon-lr-0.02",
    }
    (tmp_path / "log.json").write_text(json.dumps(log))
    found = imported("gpt-opt", tmp_path / "log.json", tmp_path / "out")
    assert curve(found, "train_loss") == [(1, 5.0), (2, 4.0), (3, 3.5)]
    assert curve(found, "val_loss") == [(3, 3.6)]
    assert curve(found, "lr") == [(1, 0.01), (2, 0.02), (3, 0.0)]
    row = found.runs.iloc[0]
    assert (row["lr"], row["seconds"], row["state"]) == (0.02, 4.0, "completed")
    assert (row["model"], row["dataset"], row["optimizer"]) == ("gpt2", "fineweb", "muon")
    assert (row["seed"], row["max_steps"]) == (3, 3)
    assert row["run.imported_from.format"] == "gpt-opt"


TRACK_3 = """import os
print0(f"step:{step}/{train_steps} val_loss:{val_loss:.4f} train_time:{training_time_ms:.0f}ms")
====================================================================================
Running Python 3.12.7
step:0/3250 val_loss:10.8258 train_time:0ms step_avg:0.03ms
step:1/3250 train_loss:10.8201 train_time:154ms step_avg:153.80ms
step:125/3250 val_loss:4.5123 train_time:19250ms step_avg:154.00ms
step:3250/3250 val_loss:3.2788 train_time:500500ms step_avg:154.00ms
"""


def test_modded_nanogpt(tmp_path: Path) -> None:
    (tmp_path / "0a1b.txt").write_text(TRACK_3)
    found = imported("modded-nanogpt", tmp_path, tmp_path / "out")
    assert curve(found, "val_loss") == [(0, 10.8258), (125, 4.5123), (3250, 3.2788)]
    assert curve(found, "train_loss") == [(1, 10.8201)]
    row = found.runs.iloc[0]
    assert (row["state"], row["max_steps"]) == ("completed", 3250)
    assert row["seconds"] == pytest.approx(500.5)


def test_a_log_that_ends_early_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TRACK_3.rsplit("step:3250", 1)[0])
    row = imported("modded-nanogpt", tmp_path, tmp_path / "out").runs.iloc[0]
    assert (row["state"], row["step"]) == ("interrupted", 125)


def test_nanogpt(tmp_path: Path) -> None:
    (tmp_path / "console.out").write_text(
        "Overriding: learning_rate = 0.002\nlearning_rate = 0.002\nmax_iters = 10\n"
        "number of parameters: 10.65M\n"
        "step 0: train loss 4.2874, val loss 4.2823\n"
        "iter 0: loss 4.2654, time 30291.41ms, mfu -100.00%\n"
        "iter 9: loss 3.1000, time 25.00ms, mfu 12.34%\n"
        "step 10: train loss 3.0500, val loss 3.0800\n"
    )
    found = imported("nanogpt", tmp_path, tmp_path / "out")
    assert curve(found, "val_loss") == [(0, 4.2823), (10, 3.08)]
    assert curve(found, "train_loss") == [(1, 4.2654), (10, 3.1)]
    row = found.runs.iloc[0]
    assert (row["lr"], row["state"], row["final_val_loss"]) == (0.002, "completed", 3.08)


HISTORY = [
    {"_step": 0, "_runtime": 1.5, "train/loss": 5.0, "train/lr_0": 0.1, "train/step": 1},
    {"_step": 1, "_runtime": 3.0, "train/loss": "NaN", "train/step": 2, "layers": {"_type": "h"}},
    {"_step": 2, "_runtime": 4.0, "val/loss": 4.5, "train/step": 2},
]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_wandb_history(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"run.{suffix}"
    if suffix == "json":
        file.write_text(json.dumps(HISTORY))
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in HISTORY))
    else:
        with open(file, "w", newline="") as out:
            names = dict.fromkeys(name for row in HISTORY for name in row)
            writer = csv.DictWriter(out, list(names))
            writer.writeheader()
            writer.writerows(HISTORY)
    found = imported("wandb", file, tmp_path / "out")
    assert curve(found, "train_loss") == [(1, 5.0)]
    assert found.metrics["train_loss"].isna().tolist() == [False, True, True]
    assert curve(found, "val_loss") == [(2, 4.5)]
    assert curve(found, "lr") == [(1, 0.1)]
    assert found.runs["final_train_loss"].item() == math.inf


def test_a_chart_of_wandb_holds_several_runs(tmp_path: Path) -> None:
    (tmp_path / "chart.csv").write_text(
        '"Step","a - b - val/loss","a - b - val/loss__MIN","a - b - val/loss__MAX","c - val/loss"\n'
        "10,4.5,4.5,4.5,\n20,4.0,4.0,4.0,4.1\n"
    )
    found = imported("wandb", tmp_path, tmp_path / "out").runs
    names = [name.rsplit("-", 1)[0] for name in found["run_name"]]
    losses = dict(zip(names, found["final_val_loss"], strict=True))
    assert losses == {"a - b": 4.0, "c": 4.1}


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value == low else bytes([low | 0x80]) + varint(value >> 7)


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def event(step: int, tag: str, scalar: bytes) -> bytes:
    summary = message(1, message(1, tag.encode()) + scalar)
    data = b"\x09" + struct.pack("<d", 1.7e9) + b"\x10" + varint(step) + message(5, summary)
    return struct.pack("<Q", len(data)) + b"crc1" + data + b"crc2"


def test_tensorboard(tmp_path: Path) -> None:
    simple = b"\x15" + struct.pack("<f", 4.5)
    tensor = message(8, b"\x08\x01" + message(5, struct.pack("<f", 0.25)))
    content = message(8, b"\x08\x02" + message(4, struct.pack("<d", 3.125)))
    data = (
        event(300, "train/loss", simple)
        + event(300, "train/lr", tensor)
        + event(300, "other", simple)
        + event(600, "val/loss", content)
    )
    file = tmp_path / "muon" / "events.out.tfevents.17.host"
    file.parent.mkdir()
    file.write_bytes(data + event(900, "val/loss", simple)[:-9])
    found = imported("tensorboard", tmp_path / "muon", tmp_path / "out")
    assert curve(found, "train_loss") == [(300, 4.5)]
    assert curve(found, "lr") == [(300, 0.25)]
    assert curve(found, "val_loss") == [(600, 3.125)]


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TRACK_3)
    out = tmp_path / "out"
    first = import_runs("modded-nanogpt", tmp_path / "a.txt", out, settings=KNOWN)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    again = import_runs("modded-nanogpt", tmp_path / "a.txt", out, settings=KNOWN)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    assert again.runs.equals(first.runs)
    # Another seed is another run, also of the same text.
    import_runs("modded-nanogpt", tmp_path / "a.txt", out, settings=KNOWN | {"args.seed": 4})
    assert len(load(out).runs) == 2


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "[1]", "hello\n", '{"losses": []}', "\x00" * 99]
)
def test_a_file_that_is_no_log_is_refused_and_nothing_is_written(
    tmp_path: Path, kind: str, content: str
) -> None:
    file = tmp_path / "log.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"log.json: no log of {kind}: "):
        import_runs(kind, file, tmp_path / "out", settings={})
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_imported_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpt-opt, modded-nanogpt"):
        import_runs("mlflow", tmp_path, tmp_path / "out", settings={})
    with pytest.raises(ValueError, match=r"no file \*tfevents\*"):
        import_runs("tensorboard", tmp_path, tmp_path / "out", settings={})
