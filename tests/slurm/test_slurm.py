"""Sweeps on a real SLURM: run with ``pytest -n 0 -m slurm``."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lab import (
    LONG,
    SUBMIT,
    TINY,
    all_are,
    is_as_undisturbed,
    job_of,
    runs,
    slurm,
    submit,
    training,
    until,
    until_queue_is_empty,
)

from gptopt import layout

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


@pytest.fixture
def sweep(place):
    """Submits a sweep from a directory with an awkward name; returns the finished process."""
    return submit


def test_an_array_completes_and_the_same_command_finds_nothing_to_do(sweep):
    content = {"steps": 3, "lr": [0.001, 0.002, 0.003]}
    first = sweep(content)
    job_of(first)
    assert first.stdout.startswith("3 runs: 3 to do\n")
    second = sweep(content).stdout
    assert second.startswith("3 runs: ")
    assert second.endswith(", nothing to do\n")
    until_queue_is_empty()
    again = sweep(content)
    assert (again.returncode, again.stdout) == (0, "3 runs: 3 completed, nothing to do\n")


@pytest.mark.parametrize("signal", ["USR2", "TERM"])
def test_a_signal_saves_requeues_and_ends_as_if_nothing_had_happened(sweep, signal):
    content = {"steps": LONG, "seed": [0, 1]}
    job = job_of(sweep(content))
    disturbed, other = until(training)
    slurm("scancel", f"--signal={signal}", f"{job}_0")
    until(all_are("completed"))
    resumed = json.loads(layout.metrics_file(disturbed, 2).read_text().splitlines()[0])
    assert 0 < resumed["start_step"] < LONG
    assert layout.attempt_numbers(other) == [1]
    until_queue_is_empty()
    assert is_as_undisturbed(content)


def test_a_cancelled_job_stays_cancelled_and_a_submission_finishes_the_rest(sweep):
    content = {"steps": LONG, "seed": [0, 1]}
    job = job_of(sweep(content))
    until(training)
    slurm("scancel", f"{job}_1")
    until(lambda: f"{job}_1" not in slurm("squeue", "--noheader", "--array"))
    time.sleep(6)  # a requeued job would be back by now
    assert f"{job}_1" not in slurm("squeue", "--noheader", "--array")
    until_queue_is_empty()
    again = sweep(content)
    assert again.stdout.startswith("2 runs: 1 completed, 1 to do (1 preempted before)\n")
    job_of(again)
    until(all_are("completed"))


def test_a_job_that_makes_room_for_another_is_finished_later(sweep):
    content = {"steps": LONG, "seed": [0, 1]}
    job_of(sweep(content))
    until(training)
    for _ in range(4):
        slurm("sbatch", "--partition=high", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1")
    until(lambda: all(layout.attempt_numbers(run)[-1] >= 2 for run in runs()))
    until(all_are("completed"))
    until_queue_is_empty()
    assert is_as_undisturbed(content)


def test_a_run_that_fails_is_a_failed_job(sweep):
    tokens = np.zeros(5_000_000, dtype="<u2")
    tokens[70_000] = 60_000  # between the places that a submission looks at
    tokens.tofile("bad.bin")
    bad = {"data": "bin", "data.train": str(Path("bad.bin").absolute()), "data.val": None}
    bad |= {"data.val_split": 9999, "data.dtype": "uint16", "data.vocab_size": 256}
    model = {key: value for key, value in TINY.items() if not key.startswith("data")}
    Path("bad.json").write_text(json.dumps(model | bad | {"seed": [0, 1]}))
    command = [SUBMIT, "bad.json", "cluster.cpus_per_task=1"]
    job = job_of(subprocess.run(command, capture_output=True, text=True))
    until_queue_is_empty()
    told = slurm("scontrol", "show", "job", job)
    assert told.count("JobState=FAILED") == 2
    assert told.count("ExitCode=65:0") == 2
    (log, _) = Path("logs").rglob("*_log.out")
    assert "bad.bin, offset 140000: token id 60000" in log.read_text()


def test_a_bad_partition_is_told_in_the_words_of_sbatch(sweep):
    refused = sweep({"steps": 2, "seed": [0, 1]}, "cluster.partition=nope")
    assert refused.returncode == 1
    assert "invalid partition specified: nope" in refused.stderr
    assert not Path("outputs").exists()
    assert sweep({"steps": 2, "seed": [0, 1]}, "--dry-run").stdout.startswith("2 runs: 2 to do\n")


def test_hydras_own_launcher_gives_the_same_directories(sweep):
    job_of(sweep({"steps": 2, "seed": [0, 1]}))
    until_queue_is_empty()
    before = {run: (run / "completed.json").stat().st_mtime_ns for run in runs()}
    paths = json.loads((layout.PROJECT / "gptopt" / "sweep" / "aliases.json").read_text())
    values = [f"{paths.get(key, key)}={value}" for key, value in TINY.items()]
    values += [f"{paths['steps']}=2", f"{paths['seed']}=0,1"]
    launcher = ["hydra/launcher=slurm", "cluster=slurm", "cluster.cpus_per_task=1"]
    command = [sys.executable, layout.ENTRY, "-m", *launcher, *values]
    subprocess.run(command, check=True, capture_output=True)
    assert {run: (run / "completed.json").stat().st_mtime_ns for run in runs()} == before
    assert len(before) == 2
