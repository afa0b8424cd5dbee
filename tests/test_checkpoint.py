"""Checkpoints: complete or not there, verified before they are believed, never silently lost."""

import json
import math
import os
import random
import shutil

import numpy as np
import pytest
import torch
from tiny import checkpoints, flip_byte, state_file

from gptopt import checkpoint, layout
from gptopt.checkpoint import StorageError
from gptopt.lease import BusyError, Lease

CPU = torch.device("cpu")


@pytest.fixture
def lease(tmp_path):
    lease = Lease.take(tmp_path / "run")
    yield lease
    lease.release()


def save(lease, step, metric=None, **extra):
    state = {"step": step, "weights": torch.full((1000,), float(step)), **extra}
    return checkpoint.save(lease, step, state, metric=metric)


def find(lease, resume="auto", *, mode="min", saved_step=0):
    return checkpoint.find(lease.run, resume, mode, saved_step=saved_step)


def prune(lease, *, keep_last=2, keep_top_k=0, mode="min"):
    checkpoint.prune(lease.run, keep_last=keep_last, keep_top_k=keep_top_k, mode=mode)
    return layout.checkpoint_steps(lease.run)


def test_what_was_saved_is_loaded(lease):
    path = save(lease, 3)
    loaded = checkpoint.load(path)
    assert (loaded.path, loaded.step, loaded.state["step"]) == (path, 3, 3)
    assert torch.equal(loaded.state["weights"], torch.full((1000,), 3.0))
    assert checkpoints(lease.run) == ["step-00000003"]


def test_a_step_saved_again_replaces_the_first(lease):
    save(lease, 3, note="first")
    path = save(lease, 3, note="second")
    assert checkpoint.load(path).state["note"] == "second"
    assert checkpoints(lease.run) == ["step-00000003"]


def test_the_generators_come_back_through_a_checkpoint(lease):
    checkpoint.seed_everything(7)
    np.random.standard_normal()  # leaves a second normal number for later
    random.gauss(0, 1)
    path = save(lease, 1, random=checkpoint.random_state(CPU))

    def draw():
        return torch.rand(3).tolist(), random.gauss(0, 1), np.random.standard_normal(3).tolist()

    expected = draw()
    checkpoint.seed_everything(8)
    checkpoint.set_random_state(checkpoint.load(path).state["random"], CPU)
    assert draw() == expected


def test_every_process_finds_its_own_generators(lease):
    path = checkpoint.save(
        lease, 1, {"random": "main"}, metric=None, extra={"rank-0001.pt": {"random": "first"}}
    )
    assert checkpoint.load(path).state["random"] == "main"
    assert checkpoint.load(path, rank=1).state["random"] == "first"


# --- damage -------------------------------------------------------------------------------------


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _zero_a_block(path):
    data = bytearray(path.read_bytes())
    data[1000:2000] = bytes(1000)
    path.write_bytes(data)


def _empty_the_directory(path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def _forget_the_manifest(path):
    (path.parent / layout.MANIFEST).unlink()


def _cut_the_manifest(path):
    _truncate(path.parent / layout.MANIFEST)


def _empty_the_manifest(path):
    (path.parent / layout.MANIFEST).write_text("{}")


DAMAGE = [
    flip_byte,
    _truncate,
    _zero_a_block,
    os.unlink,
    _empty_the_directory,
    _forget_the_manifest,
    _cut_the_manifest,
    _empty_the_manifest,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(lease, damage, caplog):
    for step in (1, 2, 3):
        save(lease, step)
    damage(state_file(lease.run, 3))
    with pytest.raises(StorageError, match="step-00000003"):
        checkpoint.load(layout.checkpoint_dir(lease.run, 3))
    assert find(lease) == layout.checkpoint_dir(lease.run, 2)
    assert checkpoints(lease.run) == ["step-00000001", "step-00000002", "step-00000003.bad"]
    assert "step-00000003 is damaged" in caplog.text


def test_every_flipped_byte_is_noticed(lease):
    path = state_file(lease.run, 1)
    save(lease, 1)
    whole = path.read_bytes()
    for offset in random.Random(0).sample(range(len(whole)), 200):
        flip_byte(path, offset)
        assert checkpoint.verify(path.parent) is not None
        flip_byte(path, offset)
    assert path.read_bytes() == whole
    assert checkpoint.verify(path.parent) is None


def test_a_manifest_cut_at_any_byte_is_noticed(lease):
    path = save(lease, 1) / layout.MANIFEST
    whole = path.read_bytes()
    for length in range(len(whole.rstrip())):
        path.write_bytes(whole[:length])
        assert checkpoint.verify(path.parent) is not None


def test_when_none_is_good_the_run_stops_and_keeps_stopping(lease):
    for step in (1, 2):
        flip_byte(save(lease, step) / checkpoint.STATE)
    for _ in range(2):  # also the next start, which finds only what was set aside
        with pytest.raises(StorageError, match="no good checkpoint.*force"):
            find(lease)


def test_deleted_checkpoints_of_a_run_that_reported_some_are_missed(lease):
    assert find(lease) is None
    with pytest.raises(StorageError, match="newest step told: 12"):
        find(lease, saved_step=12)


def test_a_checkpoint_of_another_schema_says_both_numbers(lease):
    path = save(lease, 1)
    manifest = json.loads((path / layout.MANIFEST).read_text())
    (path / layout.MANIFEST).write_text(json.dumps(manifest | {"schema": 999}))
    with pytest.raises(StorageError, match=f"schema 999, this code reads {checkpoint.SCHEMA}"):
        checkpoint.load(path)


# --- which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 3)])
def test_best_is_by_finite_metric_and_among_equals_the_earlier(lease, mode, best):
    metrics = {1: math.nan, 2: 4.0, 3: 5.0, 4: None, 5: 4.0, 6: math.inf, 7: -math.inf, 8: 5.0}
    for step, metric in metrics.items():
        save(lease, step, metric)
    assert find(lease, "best", mode=mode) == layout.checkpoint_dir(lease.run, best)
    assert sorted(checkpoint.ranked(lease.run, mode)) == [2, 3, 5, 8]


def test_best_falls_back_to_the_second_best(lease):
    for step, metric in {1: 3.0, 2: 1.0, 3: 2.0}.items():
        save(lease, step, metric)
    flip_byte(state_file(lease.run, 2))
    assert find(lease, "best") == layout.checkpoint_dir(lease.run, 3)


def test_best_without_any_metric_is_the_newest(lease):
    save(lease, 1)
    save(lease, 2)
    assert find(lease, "best") == layout.checkpoint_dir(lease.run, 2)


def test_a_step_that_was_not_saved_is_answered_with_those_that_were(lease):
    save(lease, 4)
    assert find(lease, 4) == layout.checkpoint_dir(lease.run, 4)
    with pytest.raises(StorageError, match=r"no checkpoint of step 5; it has \[4\]"):
        find(lease, 5)


def test_later_checkpoints_are_set_aside_not_deleted(lease):
    for step in (1, 2, 3):
        save(lease, step)
    checkpoint.set_aside_later(lease.run, 1)
    save(lease, 2)
    checkpoint.set_aside_later(lease.run, 1)
    assert checkpoints(lease.run) == [
        "step-00000001",
        "step-00000002.superseded",
        "step-00000002.superseded-2",
        "step-00000003.superseded",
    ]


# --- what stays ---------------------------------------------------------------------------------


def test_the_newest_and_the_best_stay(lease):
    for step, metric in {1: 3.0, 2: 1.0, 3: 2.0, 4: math.nan, 5: 5.0, 6: 4.0}.items():
        save(lease, step, metric)
    assert prune(lease, keep_last=3, keep_top_k=2) == [2, 3, 4, 5, 6]
    assert prune(lease, keep_last=2, keep_top_k=1) == [2, 5, 6]
    assert prune(lease, keep_last=1, keep_top_k=1, mode="max") == [5, 6]
    assert prune(lease, keep_last=1) == [6]


def test_what_killed_attempts_left_is_swept(lease):
    save(lease, 1)
    for leftover in (".tmp-step-00000002-1", ".trash-step-00000000-77"):
        shutil.copytree(layout.checkpoint_dir(lease.run, 1), lease.run / "checkpoints" / leftover)
    checkpoint.sweep(lease.run)
    assert checkpoints(lease.run) == ["step-00000001"]


# --- what stops a save --------------------------------------------------------------------------


def test_a_replaced_attempt_saves_nothing(lease):
    save(lease, 1)
    layout.attempt_file(lease.run, 2).write_text("{}")
    with pytest.raises(BusyError):
        save(lease, 2)
    assert checkpoints(lease.run) == ["step-00000001"]


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_an_error_of_the_disk_leaves_the_checkpoints_that_exist(lease, call, monkeypatch):
    save(lease, 1)

    def fails(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(
            StorageError, match=r"step-00000002: Input/output error; .* GB are free"
        ):
            save(lease, 2)
    assert checkpoints(lease.run) == ["step-00000001"]
    assert checkpoint.verify(save(lease, 2)) is None


def test_what_could_not_be_loaded_again_is_not_saved(lease):
    save(lease, 1)
    with pytest.raises(TypeError, match="weights_only"):
        save(lease, 2, path=lease.run)
    assert checkpoints(lease.run) == ["step-00000001"]
