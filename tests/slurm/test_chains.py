"""Stages that follow one another through the queue: run with ``pytest -n 0 -m slurm``."""

from pathlib import Path

import pytest
from lab import job_of, runs, slurm, submit, until, until_queue_is_empty

from gptopt import dispatch, layout
from gptopt.state import read_state
from gptopt.sweep.record import Record

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm"), pytest.mark.usefixtures("place")]
STAGES = [{"lr": [0.001, 0.003, 0.01]}, {"$top": 1, "seed": [1, 2]}]


@pytest.mark.parametrize(
    "options",
    [["--via", "submitit"], ["--via", "disbatch", "cluster.workers=2", "cluster.runs_per_job=2"]],
)
def test_the_second_stage_is_submitted_when_the_first_has_ended(options):
    job_of(submit({"steps": 3, "$stages": STAGES}, "--chain", *options))
    until_queue_is_empty()
    told = "\n".join(path.read_text() for path in Path("logs").rglob("*.out"))
    assert len(list(Path("outputs").rglob("completed.json"))) == 3 + 2, told
    assert [layout.attempt_numbers(run) for run in runs()] == [[1]] * 5


def test_cancelling_a_chain_leaves_nothing_that_would_go_on():
    job_of(submit({"steps": 10**5, "$stages": STAGES}, "--chain"))
    until(lambda: len(runs()) == 3)
    assert len(slurm("squeue", "--noheader", "--array").splitlines()) == 3 + 1
    (record,) = Path("logs").rglob("run_info_1")
    assert dispatch.cancel(Record(record.absolute())) == 3 + 1
    until_queue_is_empty()
    assert not list(Path("logs").rglob("run_info_2"))
    assert {read_state(run).state for run in runs()} <= {"preempted", "interrupted"}
