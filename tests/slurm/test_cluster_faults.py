"""What clusters do to sweeps, done to them on purpose: run with ``pytest -n 0 -m slurm``."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import (
    LONG,
    SUBMIT,
    TINY,
    all_are,
    job_of,
    runs,
    slurm,
    steps,
    submit,
    training,
    until,
    until_queue_is_empty,
    write,
)

from gptopt import layout
from gptopt.state import read_state

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

A_MINUTE = {"steps": 24000, "seed": 0, "checkpoint.save_interval": 1000}
"""A run that is still at work when SLURM notices that its node or its time is gone."""
KEY = "5ecre7-0f-wandb"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same run without any trouble."""
    directory = tmp_path_factory.mktemp("undisturbed")
    name = directory / "sweep.json"
    name.write_text(json.dumps(TINY | A_MINUTE))
    command = [sys.executable, "-m", "gptopt.cli", "sweep", "submit", name, "--via", "local"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    (run,) = runs(directory)
    return run


def assert_same(run, other):
    one, two = (json.loads((path / "completed.json").read_text()) for path in (run, other))
    assert steps(run) == steps(other)
    assert one["weights"] == two["weights"]


def attempts_of_all():
    return {run.name: layout.attempt_numbers(run) for run in runs()}


def test_a_node_that_dies_leaves_the_run_to_the_second_start_of_its_job(place, undisturbed):
    job = job_of(submit(A_MINUTE))
    (run,) = until(lambda: training(1))
    until(lambda: any((run / "checkpoints").glob("step-*")))
    (node,) = slurm("squeue", "--noheader", "--job", job, "--format", "%N").split()
    slurmd = Path(os.environ["SLURM_CONF"]).parent.parent / "run" / f"slurmd-{node}.pid"
    os.kill(int(slurmd.read_text()), signal.SIGKILL)
    try:
        first = json.loads(layout.attempt_file(run, 1).read_text())
        until(lambda: layout.attempt_file(run, 2).is_file())
        until(lambda: not Path(f"/proc/{first['pid']}").exists(), 30)
        (log,) = Path("logs").rglob("*_log.out")
        assert "attempt 1, stops without writing" in log.read_text()
        until(all_are("completed"), 240)
        assert layout.attempt_numbers(run) == [1, 2]
        second = json.loads(layout.metrics_file(run, 2).read_text().splitlines()[0])
        assert second["start_step"] > 0
        assert_same(run, undisturbed)
    finally:
        until_queue_is_empty()
        subprocess.run(["slurmd", "-N", node], check=True, env=_with_sbin())
        resume = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(resume, capture_output=True)  # refused when it is back already
        until(lambda: slurm("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T").strip() == "idle")


def test_the_time_limit_saves_before_it_requeues_and_finishes(place, undisturbed):
    job_of(submit(A_MINUTE, "cluster.timeout_min=1"))
    until(all_are("completed"), 360)
    (run,) = runs()
    starts = [
        json.loads(path.read_text().splitlines()[0])["start_step"]
        for _, path in layout.metrics_files(run)
    ]
    assert len(starts) >= 2
    assert starts == sorted(set(starts))  # each start goes on from where the last one stopped
    stops = [
        json.loads(path.read_text().splitlines()[-1]) for _, path in layout.metrics_files(run)[:-1]
    ]
    assert [(stop["event"], stop["step"]) for stop in stops] == [("stop", s) for s in starts[1:]]
    assert_same(run, undisturbed)


def test_a_long_array_is_cut_at_what_the_cluster_takes(place):
    submission = submit({"steps": 2, "seed": list(range(8))})
    assert submission.returncode == 0, submission.stderr
    assert "8 runs in the queue, jobs " in submission.stdout
    assert len({line.split("_")[0] for line in _queue()}) == 2
    until(lambda: len(runs()) == 8)
    until(all_are("completed"))


def test_editing_a_yaml_while_jobs_wait_changes_nothing(place, tmp_path, monkeypatch):
    project = tmp_path / "project"
    for part in ("gptopt", "hydra_conf", "slurm_scripts"):
        shutil.copytree(layout.PROJECT / part, project / part)
    shutil.copy(layout.ENTRY, project)
    monkeypatch.setenv("PYTHONPATH", str(project))
    slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        write({"steps": 2, "seed": [0, 1], "optimizer": "adamw"})
        command = [sys.executable, "-m", "gptopt.cli", "sweep", "submit", "my sweep.json"]
        job_of(subprocess.run(command, capture_output=True, text=True))
        adamw = project / "hydra_conf" / "optimizer" / "adamw.yaml"
        text = adamw.read_text()
        assert "lr: 0.001" in text
        adamw.write_text(text.replace("lr: 0.001", "lr: 0.5"))
    finally:
        slurm("scontrol", "update", "partitionname=main", "state=up")
    until(lambda: len(runs()) == 2)
    until(all_are("completed"))
    for run in runs():
        assert "lr: 0.001" in (run / "resolved.yaml").read_text()


@pytest.mark.parametrize("place", ["confined"], indirect=True)
def test_a_cluster_without_its_accounting_does_no_harm(place):
    directory = Path(os.environ["SLURM_CONF"]).parent.parent
    os.kill(int((directory / "run" / "slurmdbd.pid").read_text()), signal.SIGTERM)
    until(lambda: subprocess.run(["sacct"], capture_output=True).returncode != 0)
    try:
        content = {"steps": 2, "seed": [0, 1]}
        job_of(submit(content))
        until(lambda: len(runs()) == 2)
        until(all_are("completed"))
        assert submit(content).stdout.endswith("2 runs: 2 completed, nothing to do\n")
    finally:
        subprocess.run(["slurmdbd"], check=True, env=_with_sbin())


def test_a_submitter_killed_at_any_moment_costs_nothing(place):
    moments = [0.1 + 0.1 * number for number in range(20)]
    sweeps = [write({"steps": 2, "seed": [2 * i, 2 * i + 1]}, f"s{i}.json") for i in range(20)]
    command = [SUBMIT, "cluster.cpus_per_task=1"]
    for moment, name in zip(moments, sweeps, strict=True):
        process = subprocess.Popen(
            [command[0], name, command[1]], stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name in sweeps:
        again = subprocess.run([command[0], name, command[1]], capture_output=True, text=True)
        assert again.returncode == 0, again
    until_queue_is_empty(300)
    assert {read_state(run).state for run in runs()} == {"completed"}
    assert len(runs()) == 40
    assert set(map(tuple, attempts_of_all().values())) == {(1,)}


def test_two_submissions_at_the_same_moment_train_every_run_once(place):
    name = write({"steps": LONG // 5, "seed": list(range(4))})
    command = [SUBMIT, name, "cluster.cpus_per_task=1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    until_queue_is_empty()
    assert attempts_of_all() == {run.name: [1] for run in runs()}
    assert len(runs()) == 4
    assert submit({"steps": LONG // 5, "seed": list(range(4))}).stdout.endswith(
        "4 runs: 4 completed, nothing to do\n"
    )


@pytest.mark.parametrize("via", ["submitit", "disbatch", "local"])
def test_a_key_of_the_environment_is_in_no_file_of_a_sweep(place, via, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    submission = submit({"steps": 2, "seed": [0, 1], "+logging": "wandb"}, "--via", via)
    assert submission.returncode == 0, submission
    until_queue_is_empty()
    assert {read_state(run).state for run in runs()} == {"completed"}
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def _queue():
    return slurm("squeue", "--noheader", "--array", "--format", "%i").splitlines()


def _with_sbin():
    return os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
