"""Jobs that take several runs on a real SLURM: run with ``pytest -n 0 -m slurm``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab import (
    LONG,
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

from gptopt import dispatch, layout
from gptopt.sweep.record import Record

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm"), pytest.mark.usefixtures("place")]


def test_two_jobs_share_five_runs_and_train_each_once():
    content = {"steps": 20, "seed": [0, 1, 2, 3, 4]}
    job = job_of(submit(content, "cluster.runs_per_job=3"))
    elements = slurm("squeue", "--noheader", "--array", "--jobs", job).splitlines()
    assert len(elements) == 2
    assert submit(content).stdout.endswith(" pending, nothing to do\n")
    until_queue_is_empty()
    assert submit(content).stdout == "5 runs: 5 completed, nothing to do\n"
    assert [layout.attempt_numbers(run) for run in runs()] == [[1]] * 5
    (record,) = Path("logs").rglob("run_info_1")
    assert {path.name for path in record.rglob("?.log")} == {f"{index}.log" for index in range(5)}


def test_a_packed_job_that_is_told_to_stop_saves_its_run_and_comes_back_for_the_rest():
    content = {"steps": LONG, "seed": [0, 1, 2]}
    job = job_of(submit(content, "cluster.runs_per_job=3"))
    (first,) = until(lambda: training(1))
    slurm("scancel", "--signal=USR2", job)
    until(lambda: len(runs()) == 3 and all_are("completed")())
    resumed = json.loads(layout.metrics_file(first, 2).read_text().splitlines()[0])
    assert resumed["start_step"] > 0
    assert [layout.attempt_numbers(run) for run in runs() if run != first] == [[1]] * 2
    until_queue_is_empty()
    assert is_as_undisturbed(content)


def test_a_cancelled_sweep_leaves_the_queue_and_its_runs_can_go_on():
    content = {"steps": LONG, "seed": [0, 1, 2]}
    job_of(submit(content, "cluster.runs_per_job=3"))
    until(lambda: training(1))
    (record,) = Path("logs").rglob("run_info_1")
    assert dispatch.cancel(Record(record.absolute())) == 1
    until_queue_is_empty()
    assert submit(content, "--dry-run").stdout.startswith("3 runs: 3 to do")


def test_a_preempted_run_of_hydras_launcher_is_queued_again():
    paths = json.loads((layout.PROJECT / "gptopt" / "sweep" / "aliases.json").read_text())
    values = [f"{paths.get(key, key)}={value}" for key, value in TINY.items()]
    values += [f"{paths['steps']}={LONG}", f"{paths['seed']}=0,1"]
    launcher = ["hydra/launcher=slurm", "cluster=slurm", "cluster.cpus_per_task=1"]
    sweep = subprocess.Popen([sys.executable, layout.ENTRY, "-m", *launcher, *values])
    first, _ = until(training)
    job = json.loads(layout.attempt_file(first, 1).read_text())["job"]
    slurm("scancel", "--signal=USR2", job)
    assert sweep.wait(240) == 0
    assert len(list(Path("outputs").rglob("completed.json"))) == 2
    assert layout.attempt_numbers(first) == [1, 2]
