"""disBatch on this machine, and its SLURM job as text; tests/slurm has a real cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import POINT as TINY

from gptopt import dispatch, layout
from gptopt.dispatch import disbatch, slurm
from gptopt.sweep.record import Record

GOLDEN = """\
#!/bin/bash
#SBATCH --job-name=gptopt-sweep
#SBATCH --output={logs}/%j_disbatch.out
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=3
#SBATCH --gpus-per-node=4
#SBATCH --mem=6144MB
#SBATCH --time=90
#SBATCH --signal=B:USR1@120
#SBATCH --partition='a b'
#SBATCH --account=lab
#SBATCH --requeue
module load cuda
exec {python} -u -m gptopt.dispatch.disbatch {record} --no-retire \
--env-resource CUDA_VISIBLE_DEVICES
"""
GOLDEN_PLACES = """\
#SBATCH --output='/a 0/it'"'"'s 5%%/sweep/run_info_1/logs/%j_disbatch.out'
exec {python} -u -m gptopt.dispatch.disbatch '/a 0/it'"'"'s 5%/sweep/run_info_1' --no-retire
"""
SETTINGS = ["nodes=2", "gpus_per_node=4", "cpus_per_task=3", "mem_gb=1.5", "timeout_min=90"]
SETTINGS += ["partition='a b'", "account=lab", "setup=[module load cuda]"]


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    """A machine without SLURM, whether or not its commands are installed."""
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "no-slurm.conf"))


@pytest.fixture
def fake_sbatch(tmp_path, monkeypatch):
    """A stand-in for sbatch that keeps what it is given, then runs this shell line."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    tool = tmp_path / "bin" / "sbatch"

    def fake(then):
        tool.write_text(f'#!/bin/sh\ncp "$2" {tmp_path}/batch.sh\nenv > {tmp_path}/env\n{then}\n')
        tool.chmod(0o755)

    return fake


def command(directory, *arguments):
    """A submission of four tiny runs from ``directory``, two at a time."""
    directory.mkdir(exist_ok=True)
    content = TINY | {"lr": [0.001, 0.002, 0.003, 0.004]}
    (directory / "my sweep.json").write_text(json.dumps(content))
    submit = [sys.executable, "-m", "gptopt.cli", "sweep", "submit", "my sweep.json"]
    return [*submit, "--via", "disbatch", "cluster.workers=2", *arguments]


def submit(directory, *arguments):
    told = command(directory, *arguments)
    return subprocess.run(told, cwd=directory, capture_output=True, text=True)


def test_a_sweep_completes_and_the_same_command_finds_nothing_to_do(
    tmp_path, monkeypatch, no_slurm
):
    monkeypatch.setenv("WANDB_API_KEY", "5ecre7")
    steps = "training.training_params.max_steps=3"
    first = submit(tmp_path / "plain", steps)
    assert first.returncode == 0, first
    assert "withheld from disBatch and its runs: " in first.stdout
    assert "\n4 runs: 4 completed, nothing to do\n" in first.stdout
    again = submit(tmp_path / "plain", steps)
    assert again.returncode == 0
    assert again.stdout.startswith("4 runs: 4 completed, nothing to do\n")

    (record,) = tmp_path.rglob("run_info_1")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"0.tasks", "0_driver.log", "0_status.txt"} <= {path.name for path in written}
    assert not [path for path in written if b"5ecre7" in path.read_bytes()]
    assert (record / "disbatch").stat().st_mode & 0o077 == 0
    assert len(list((record / "logs").iterdir())) == 4


@pytest.mark.parametrize("runs_per_job", [1, 2])
def test_ctrl_c_saves_the_runs_at_work_and_the_same_command_finishes_all(
    tmp_path, monkeypatch, no_slurm, runs_per_job
):
    directory, home = tmp_path / "it's a 0", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    steps = "training.training_params.max_steps=400"
    sweep = subprocess.Popen(
        command(directory, steps, f"cluster.runs_per_job={runs_per_job}"),
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    patience = time.monotonic() + 60
    while len(list(directory.rglob("metrics.0001.jsonl"))) < 2:
        assert time.monotonic() < patience
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
    said, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 75, said
    assert "SIGINT: 2 runs save and stop" in said
    saved = {path.parent.parent: path.name for path in directory.rglob("checkpoints/step-*")}
    assert len(saved) == 2
    assert list(home.iterdir()) == list(directory.rglob(layout.STOP_FILE)) == []

    assert submit(directory, steps, "--via", "local").returncode == 0
    assert len(list(directory.rglob("completed.json"))) == 4
    for run, name in saved.items():
        resumed = json.loads((run / "metrics.0002.jsonl").read_text().splitlines()[0])
        assert resumed["start_step"] == int(name.removeprefix("step-"))


def test_the_job_says_what_the_cluster_file_says(recorded, fake_sbatch, tmp_path, monkeypatch):
    fake_sbatch("echo '123;lab'")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # of a job around us
    overrides = [f"cluster.{setting}" for setting in SETTINGS]
    record, cluster = recorded({"seed": [0, 1]}, "cluster=slurm-disbatch", *overrides)
    submission = dispatch.backend("disbatch").submit(record, cluster)
    places = {"logs": record.logs, "record": record.directory, "python": sys.executable}
    assert (tmp_path / "batch.sh").read_text() == GOLDEN.format(**places)
    assert submission.message == f"2 runs in the queue, job 123; logs: {record.logs}"
    told = (tmp_path / "env").read_text().splitlines()
    assert "OMP_NUM_THREADS=3" in told
    assert "SLURM_JOB_ID=7" not in told
    monkeypatch.setattr(
        slurm, "_queued", lambda: {("123", None): slurm.Place("123", "RUNNING", "")}
    )
    assert slurm.pending([record]) == {Path(row.run) for row in record.rows()}


def test_awkward_places_are_quoted(recorded):
    _, cluster = recorded({"seed": [0, 1]}, "cluster=slurm-disbatch")
    awkward = Record(Path("/a 0/it's 5%/sweep/run_info_1"))
    text = disbatch.batch_script(awkward, replace(cluster, workers=3))
    places = [line for line in text.splitlines(True) if "/a 0" in line]
    assert "".join(places) == GOLDEN_PLACES.format(python=sys.executable)
    assert "#SBATCH --ntasks-per-node=3\n" in text


def test_a_refusal_is_told_in_the_words_of_sbatch(recorded, fake_sbatch):
    fake_sbatch("echo 'sbatch: error: no such partition' >&2; exit 1")
    record, cluster = recorded({"seed": [0, 1]}, "cluster=slurm-disbatch")
    words = "Nothing was submitted. sbatch: error: no such partition"
    with pytest.raises(dispatch.SubmissionError, match=words):
        disbatch.submit(record, cluster)
    assert record.jobs() == {}


@pytest.mark.parametrize(
    ("step", "in_slurm", "requeued"),
    [(45, "RUNNING", True), (40, "RUNNING", False), (45, "COMPLETING", False)],
)
def test_a_job_is_queued_again_when_a_run_got_on(recorded, monkeypatch, step, in_slurm, requeued):
    record, cluster = recorded({"seed": [0, 1]})
    dispatch.prepare(record, cluster)
    run = Path(record.row(1).run)
    (run / layout.ATTEMPTS).mkdir(parents=True)
    layout.attempt_file(run, 1).write_text('{"start_step": 40, "ended": 1}')
    layout.attempt_file(run, 2).write_text('{"start_step": 40, "ended": 1}')
    calls = []

    def work(record, attempt, options, extra):
        assert (attempt, options, extra) == (2, ("--o",), {"GPTOPT_DEADLINE": "2026-01-31T12:00"})
        layout.attempt_file(run, 3).write_text('{"start_step": 40, "ended": 1}')
        status = {"state": "preempted", "attempt": 3, "step": step, "saved_step": step}
        (run / layout.STATUS).write_text(json.dumps(status))

    answers = {"%e": "2026-01-31T12:00\n", "%T": in_slurm}
    monkeypatch.setattr(disbatch, "work", work)
    monkeypatch.setattr(slurm, "ask", lambda *command: answers[command[-1]])
    monkeypatch.setattr(slurm, "run", lambda *command: calls.append(command))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert disbatch.main(str(record.directory), "--o") == 75
    assert calls == [("scontrol", "requeue", "12")] * requeued


def test_every_task_gets_a_gpu_of_its_own(recorded, no_slurm, monkeypatch):
    told = {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(
        disbatch, "work", lambda *arguments: told.update(options=arguments[2], extra=arguments[3])
    )
    record, cluster = recorded({"seed": [0, 1]})
    disbatch.submit(record, cluster)
    assert told["extra"]["CUDA_VISIBLE_DEVICES"] == "4,7"
    assert told["options"][-2:] == ["--env-resource", "CUDA_VISIBLE_DEVICES"]
    assert told["options"][:2] == ["--ssh-node", "localhost:2"]
