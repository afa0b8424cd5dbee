"""Faults of data: refused with file and reason before a model is built, or said, never a signal."""

import json
import os
import random
import re
import struct
from unittest import mock

import numpy as np
import pytest
from tiny import SETTINGS, rows

import gptopt
from gptopt import gradient, training
from gptopt.config.identity import run_directory
from gptopt.data import DataError, check_ids
from gptopt.data.batch import check_rows, read_rows
from gptopt.data.checks import check_epochs
from gptopt.data.corpus import Corpus, Mixture, Part, Stretch
from gptopt.data.preflight import check_runs
from gptopt.data.shards import Shards, open_shard
from gptopt.run import execute
from gptopt.state import ExitCode

from .loading import loader, reading

TOKENS = 700


def shard(path, tokens, magic=20240520, version=1, count=None):
    """256 int32, then uint16; all little-endian."""
    count = len(tokens) if count is None else count
    content = struct.pack("<256i", magic, version, count, *[0] * 253)
    path.write_bytes(content + np.asarray(tokens, dtype="<u2").tobytes())


@pytest.fixture
def root(tmp_path):
    """Three training shards of unequal length and one of validation, ids below 256."""
    draw = np.random.default_rng(0)
    for number, length in enumerate((TOKENS, 90, 1500)):
        shard(tmp_path / f"train_{number}.bin", draw.integers(0, 256, length))
    shard(tmp_path / "val_0.bin", draw.integers(0, 256, 600))
    return tmp_path


def config(root, *overrides):
    settings = [text for text in SETTINGS if not text.startswith(("data=", "data."))]
    return gptopt.compose(
        [
            *settings,
            "data=bin",
            "data.name=mine",
            f"data.train={root}/train_*.bin",
            f"data.val={root}/val_*.bin",
            "data.vocab_size=256",
            f"paths.output_dir={root}/out",
            "logging.logging_params.level=error",
            *overrides,
        ]
    )


def write(path, offset, value):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<i" if offset < 1024 else "<H", value))


def manifest(root):
    lengths = {path.name: path.stat().st_size // 2 - 512 for path in root.glob("*.bin")}
    shards = {name: {"tokens": tokens} for name, tokens in lengths.items()}
    (root / "manifest.json").write_text(json.dumps({"tokenizer": "gpt2", "shards": shards}))


FAULTS = {
    "A1 truncated": (lambda r: os.truncate(r / "train_1.bin", 1100), "train_1.bin: offset 8: "),
    "A1 too long": (lambda r: os.truncate(r / "train_1.bin", 1206), "the file has 1206 bytes"),
    "A1 odd size": (lambda r: os.truncate(r / "train_2.bin", 4023), "the file has 4023 bytes"),
    "A1 magic": (lambda r: write(r / "train_2.bin", 0, 7), "train_2.bin: offset 0: magic number 7"),
    "A1 version": (lambda r: write(r / "val_0.bin", 4, 9), "val_0.bin: offset 4: version 9"),
    "A2 id": (
        lambda r: write(r / "train_1.bin", 1024 + 2 * 41, 60000),
        "train_1.bin, offset 1106: token id 60000; model.config.vocab_size=256",
    ),
    "A2 id held out": (
        lambda r: write(r / "val_0.bin", 1024 + 2 * 599, 256),
        "val_0.bin, offset 2222: token id 256",
    ),
    "A4 too small": (
        lambda r: [shard(r / f"train_{n}.bin", range(20 + n)) for n in range(3)],
        "63 training tokens make 1 windows of context_length=32 .* global_batch_size=4",
    ),
    "A4 no validation": (
        lambda r: shard(r / "val_0.bin", [1]),
        "The validation set has 1 tokens and needs at least 2",
    ),
    "A7 a shard is missing": (
        lambda r: (manifest(r), (r / "train_1.bin").unlink()),
        "manifest.json lists train_1.bin, not found",
    ),
    "A9 preparation was killed": (lambda r: (r / "unfinished").touch(), "has not finished here"),
    "A10 a shard is in both parts": (
        lambda r: (r / "train_9.bin").write_bytes((r / "val_0.bin").read_bytes()),
        "train_9.bin is among the training shards .*/val_0.bin",
    ),
    "A11 nothing there": (
        lambda r: [path.unlink() for path in r.glob("train*")],
        "no file matches .*train_.*gptopt data prepare",
    ),
}


@pytest.mark.parametrize(("damage", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_refused_before_a_model_is_built_and_before_a_run_is_queued(
    root, damage, said, capfd
):
    damage(root)
    run = config(root)
    with pytest.raises(DataError, match=f"(?s){said}"):
        check_runs([run])
    with mock.patch.object(training, "build_model", side_effect=AssertionError):
        code, _ = execute(run)
    assert code == ExitCode.DATA == 65
    assert not run_directory(run).exists()


def test_sound_data_passes_and_all_runs_of_a_sweep_open_it_once(root):
    runs = [config(root, f"training.training_params.seed={seed}") for seed in range(3)]
    with mock.patch("gptopt.data.preflight.open_corpus", side_effect=_open) as opened:
        check_runs(runs)
    assert opened.call_count == 1


def _open(data, data_root):
    from gptopt.data import open_corpus

    return open_corpus(data, data_root)


def test_a10_a_shard_that_is_there_twice_is_told_of(root):
    (root / "train_3.bin").write_bytes((root / "train_0.bin").read_bytes())
    with mock.patch("gptopt.data.stored.log") as log:
        check_runs([config(root)])
    text, *words = log.warning.call_args.args
    told = text % tuple(words)
    assert re.search(r"train: .*/train_3.bin has the content of .*/train_0.bin", told)


@pytest.mark.parametrize(("name", "length"), [("train_1.bin", 90), ("val_0.bin", 600)])
def test_a3_a_run_does_not_resume_on_a_replaced_shard(root, name, length):
    run = config(root, "training.training_params.max_steps=8")
    with mock.patch.object(training, "evaluate", side_effect=RuntimeError):
        execute(run)
    shard(root / name, np.zeros(length))
    with mock.patch.object(training, "build_model", side_effect=AssertionError):
        with pytest.raises(DataError, match=f"files have changed \\(.*/{name}\\)"):
            gptopt.train(run)
        assert execute(run)[0] == ExitCode.DATA


def test_a6_a_shard_cut_short_under_a_run_ends_in_a_message(root):
    run = config(root)
    fit = gradient.training_loss

    def cut(*args, **settings):
        os.truncate(root / "train_2.bin", 1030)
        return fit(*args, **settings)

    with mock.patch.object(gradient, "training_loss", cut):
        assert execute(run)[0] == ExitCode.DATA
    failed = json.loads((run_directory(run) / "failed.json").read_text())
    assert "train_2.bin: ends at byte 1030; it had 1500 tokens" in failed["error"]
    assert failed["exit_code"] == 65


def test_a8_the_split_is_the_pattern_and_no_word_inside_a_name(root):
    (root / "val_0.bin").rename(root / "retrieval_val.bin")
    shard(root / "train_val_like.bin", range(200))
    found = config(root, f"data.val={root}/retrieval_*.bin")
    check_runs([found])


def test_a12_validation_does_not_depend_on_batch_size(root):
    losses = []
    for size in (1, 3, 16):
        run = config(root, "training.training_params.max_steps=2",
                     f"logging.logging_params.eval_batch_size={size}", "+force")  # fmt: skip
        losses.append(rows(gptopt.train(run).run)[-1]["val_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)  # float32 products of other shapes
    assert losses[2] == pytest.approx(losses[0], rel=1e-6)


# --- ids that are looked at late ----------------------------------------------------------------


def test_of_a_long_source_some_places_are_looked_at_and_the_rest_when_it_is_read(monkeypatch):
    monkeypatch.setattr("gptopt.data.checks.READ_IN_FULL", 10_000)
    monkeypatch.setattr("gptopt.data.checks.PLACE", 10)
    tokens = np.zeros(20_000, dtype=np.uint16)
    check_ids(tokens, 5, in_full=True)
    for place in (0, 9, 19_990, 19_999):
        tokens[place] = 5
        with pytest.raises(DataError, match=f"Token {place}: token id 5"):
            check_ids(tokens, 5, in_full=True)
        tokens[place] = 0
    tokens[15] = 5  # between two places
    check_ids(tokens, 5, in_full=True)
    batches = loader(tokens, shuffle=False, reading=reading(vocab_size=5))
    with pytest.raises(DataError, match="Token 15: token id 5; model.config.vocab_size=5 takes"):
        batches.next_batch()


def test_an_id_read_late_is_named_with_file_and_offset_also_through_a_stretch(root):
    source = Shards([open_shard(root / f"train_{number}.bin", None) for number in range(3)])
    write(root / "train_1.bin", 1024 + 2 * 3, 300)
    part = Stretch(source, TOKENS - 5, TOKENS + 50)
    starts = np.array([20, 4])
    rows_read = np.empty((2, 9), dtype=source.dtype)
    read_rows(part, starts, list(rows_read))
    with pytest.raises(DataError, match=r"train_1.bin, offset 1030: token id 300"):
        check_rows(part, starts, rows_read, 256)


# --- epochs -------------------------------------------------------------------------------------


def epochs(tokens, samples, loop):
    corpus = Corpus(tokens, np.zeros(9), "", 256, {})
    return check_epochs(corpus, context_length=8, samples=samples, loop=loop)


def test_a_run_that_would_read_again_is_refused_unless_it_may():
    tokens = np.zeros(81, dtype=np.uint8)
    assert epochs(tokens, 10, loop=False) == []
    epochs(tokens, 11, loop=True)
    with pytest.raises(DataError, match="data.loop=false: the run reads 11 windows .* are 10"):
        epochs(tokens, 11, loop=False)


def test_each_part_of_a_mixture_is_counted_by_itself():
    parts = Part("a", np.zeros(81), 3.0), Part("b", np.zeros(161), 1.0)
    mixture = Mixture(parts, "weighted")
    assert epochs(mixture, 40, loop=True) == [
        "a: 30 windows, 0.75 of the run, 3 epochs",
        "b: 10 windows, 0.25 of the run, 0.5 epochs",
    ]
    with pytest.raises(DataError, match="a: the run reads 15 windows"):
        epochs(mixture, 20, loop=False)


# --- fuzz ---------------------------------------------------------------------------------------


def test_two_thousand_fuzzed_headers_end_in_a_shard_or_a_data_error(tmp_path):
    draw, path = random.Random(0), tmp_path / "a.bin"
    sound = struct.pack("<256i", 20240520, 1, 50, *[0] * 253) + bytes(100)
    kept, said = 0, []
    for _ in range(2000):
        content = bytearray(sound)
        for _ in range(draw.choice([1, 1, 2, 8])):
            content[draw.randrange(draw.choice([12, len(content)]))] = draw.getrandbits(8)
        content = content[: draw.choice([len(content)] * 3 + [draw.randrange(len(content))])]
        path.write_bytes(content)
        try:
            found = open_shard(path, draw.choice([None, None, "uint8", "uint16", "uint32"]))
        except DataError as error:
            said.append(str(error))
            continue
        kept += 1
        source = Shards([found])
        assert len(source[0 : len(source)]) == len(source) <= len(content)
    assert 200 < kept < 1800
    assert all(text.startswith(f"{path}: ") for text in said)
