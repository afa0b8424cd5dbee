"""Sweeps on a real SLURM: run with ``pytest -n 0 -m slurm``."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.state import read_state

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SUBMIT = layout.PROJECT / "slurm_scripts" / "submit.sh"
TINY = {
    "model.config.n_layer": 1,
    "model.config.n_embd": 16,
    "model.config.n_head": 1,
    "model.config.dropout_resid": 0.1,
    "data": "grammar",
    "data.tokens": 20000,
    "data.val_split": 2000,
    "bs": 2,
    "context_length": 32,
    "logging.logging_params.eval_tokens": 1024,
}
LONG = 1500  # steps: some seconds
PATIENCE_S = 120


def slurm(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def until(condition):
    """Waits for what ``condition`` returns to be true, and returns it."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, slurm("squeue", "--array")
        time.sleep(0.1)
    return found


@pytest.fixture
def sweep(cluster, tmp_path, monkeypatch):
    """Submits a sweep from a directory with an awkward name; returns the finished process."""
    directory = tmp_path / "it's here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)

    def sweep(content, *arguments):
        Path("my sweep.json").write_text(json.dumps(TINY | content))
        command = [SUBMIT, "my sweep.json", "cluster.cpus_per_task=1", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    yield sweep
    slurm("scancel", "--user", str(os.getuid()))
    until(lambda: not slurm("squeue", "--noheader"))


def job_of(submission):
    assert submission.returncode == 0, submission
    return re.search(r"in the queue, job (\d+);", submission.stdout)[1]


def runs():
    return sorted(path.parent for path in Path("outputs").rglob("attempts"))


def training():
    """Run directories, once two of them have trained some steps."""
    begun = [run for run in runs() if (run / "metrics.0001.jsonl").is_file()]
    return begun if len(begun) == 2 else None


def all_are(state):
    return lambda: {read_state(run).state for run in runs()} == {state}


def steps(run):
    """Step and loss of all training rows that count, as the reader of results merges them."""
    files = [path for _, path in layout.metrics_files(run)]
    attempts = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
    kept = {}
    for rows in attempts:
        begin = rows[0]["start_step"]
        kept = {step: loss for step, loss in kept.items() if step <= begin}
        kept |= {row["step"]: row["train_loss"] for row in rows if row["event"] == "train"}
    return kept


def test_an_array_completes_and_the_same_command_finds_nothing_to_do(sweep):
    content = {"steps": 3, "lr": [0.001, 0.002, 0.003]}
    first = sweep(content)
    job_of(first)
    assert first.stdout.startswith("3 runs: 3 to do\n")
    assert sweep(content).stdout == "3 runs: 3 pending, nothing to do\n"
    until(lambda: not slurm("squeue", "--noheader"))
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
    end = json.loads((disturbed / "completed.json").read_text())

    until(lambda: not slurm("squeue", "--noheader"))
    os.rename("outputs", "disturbed")
    local = sweep(content, "--via", "local")
    assert local.returncode == 0
    (undisturbed,) = [run for run in runs() if run.name == disturbed.name]
    assert steps(undisturbed) == steps(Path("disturbed") / disturbed.relative_to("outputs"))
    same = json.loads((undisturbed / "completed.json").read_text())
    assert same["final"] == end["final"]


def test_a_cancelled_job_stays_cancelled_and_a_submission_finishes_the_rest(sweep):
    content = {"steps": LONG, "seed": [0, 1]}
    job = job_of(sweep(content))
    until(training)
    slurm("scancel", f"{job}_1")
    until(lambda: f"{job}_1" not in slurm("squeue", "--noheader", "--array"))
    time.sleep(6)  # a requeued job would be back by now
    assert f"{job}_1" not in slurm("squeue", "--noheader", "--array")
    until(lambda: not slurm("squeue", "--noheader"))
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


def test_a_run_that_fails_is_a_failed_job(sweep):
    lost = {"data": "text", "data.path": "lost.txt", "data.val_split": 0.1}
    model = {key: value for key, value in TINY.items() if not key.startswith("data")}
    Path("lost.json").write_text(json.dumps(model | lost | {"seed": [0, 1]}))
    command = [SUBMIT, "lost.json", "cluster.cpus_per_task=1"]
    job = job_of(subprocess.run(command, capture_output=True, text=True))
    until(lambda: not slurm("squeue", "--noheader"))
    told = slurm("scontrol", "show", "job", job)
    assert told.count("JobState=FAILED") == 2
    assert told.count("ExitCode=65:0") == 2
    (log, _) = Path("logs").rglob("*_log.out")
    assert "lost.txt" in log.read_text()


def test_a_bad_partition_is_told_in_the_words_of_sbatch(sweep):
    refused = sweep({"steps": 2, "seed": [0, 1]}, "cluster.partition=nope")
    assert refused.returncode == 1
    assert "invalid partition specified: nope" in refused.stderr
    assert not Path("outputs").exists()
    assert sweep({"steps": 2, "seed": [0, 1]}, "--dry-run").stdout.endswith("2 runs: 2 to do\n")


def test_hydras_own_launcher_gives_the_same_directories(sweep):
    job_of(sweep({"steps": 2, "seed": [0, 1]}))
    until(lambda: not slurm("squeue", "--noheader"))
    before = {run: (run / "completed.json").stat().st_mtime_ns for run in runs()}
    paths = json.loads((layout.PROJECT / "gptopt" / "sweep" / "aliases.json").read_text())
    values = [f"{paths.get(key, key)}={value}" for key, value in TINY.items()]
    values += [f"{paths['steps']}=2", f"{paths['seed']}=0,1"]
    launcher = ["hydra/launcher=slurm", "cluster=slurm", "cluster.cpus_per_task=1"]
    command = [sys.executable, layout.ENTRY, "-m", *launcher, *values]
    subprocess.run(command, check=True, capture_output=True)
    assert {run: (run / "completed.json").stat().st_mtime_ns for run in runs()} == before
    assert len(before) == 2
