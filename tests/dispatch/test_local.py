"""The pool of workers on this machine, with a stand-in for the training job."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from gptopt import dispatch, layout
from gptopt.dispatch import local
from gptopt.dispatch.watch import Glimpse, glimpse

FAKE_JOB = """
import json, os, pathlib, signal, sys, time
record, index = pathlib.Path(sys.argv[1]), int(sys.argv[2])
told = {name: os.environ.get(name) for name in
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "COLOUR")}
began = time.monotonic()
(record / f"started-{index}").touch()
behaviour = json.loads((record.parents[2] / "behaviour.json").read_text())[index]
if behaviour == "stubborn":
    signal.signal(signal.SIGINT, lambda *_: (record / f"asked-{index}").touch())
if behaviour in ("stubborn", "saves"):
    if behaviour == "saves":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (record / f"ready-{index}").touch()
    while True:
        time.sleep(0.01)
time.sleep(0.15)
told |= {"began": began, "ended": time.monotonic()}
(record / f"told-{index}.json").write_text(json.dumps(told))
print("words of run", index)
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(behaviour)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch, recorded):
    """(record, cluster) of runs that behave as told: an exit code, killed, saves, stubborn."""
    (tmp_path / "fake_job.py").write_text(FAKE_JOB)
    monkeypatch.setattr(local, "JOB_MODULE", "fake_job")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def fake(behaviours, *extra):
        (tmp_path / "behaviour.json").write_text(json.dumps(behaviours))
        return recorded({"seed": list(range(len(behaviours)))}, *extra)

    return fake


def told(record):
    return [json.loads(file.read_text()) for file in sorted(record.directory.glob("told-*.json"))]


def test_no_more_runs_than_workers_are_at_work_at_a_time(fake):
    record, cluster = fake([0] * 5, "cluster.workers=2")
    submission = dispatch.backend("local").submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (0, 0)
    spans = [(run["began"], run["ended"]) for run in told(record)]
    assert len(spans) == 5
    at_once = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert max(at_once) == 2


def test_a_run_that_fails_costs_one_run_and_its_words_are_kept(fake, capfd):
    record, cluster = fake([0, 1, "killed", 76, 75, 0], "cluster.workers=3")
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (2, 1)
    assert len(told(record)) == 6
    assert record.log(1).read_text() == "words of run 1\n"
    said = capfd.readouterr().out
    assert f"failed, exit code 1; see {record.log(1)}" in said
    assert f"failed, signal SIGKILL; see {record.log(2)}" in said
    assert "is being run by somebody else" in said
    assert "[6/6]" in said


def test_cores_are_shared_among_the_workers(fake, monkeypatch):
    monkeypatch.setattr(local, "cpu_count", lambda: 7)
    record, cluster = fake([0], "cluster.workers=3", "+cluster.env.COLOUR=blue")
    local.submit(record, cluster)
    (run,) = told(record)
    assert (run["OMP_NUM_THREADS"], run["MKL_NUM_THREADS"]) == ("2", "2")
    assert (run["CUDA_VISIBLE_DEVICES"], run["COLOUR"]) == (None, "blue")


@pytest.mark.parametrize(
    ("visible", "settings", "devices"),
    [
        ("4,7", [], ["4", "7"]),
        ("4,7", ["cluster.workers=3"], ["4", "7", "4"]),
        ("GPU-a,GPU-b", [], ["GPU-a", "GPU-b"]),
        ("", ["cluster.workers=2"], [None, None]),
    ],
)
def test_every_worker_sees_one_gpu(fake, monkeypatch, visible, settings, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _, cluster = fake([0], *settings)
    environments = local.environments(cluster)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in environments] == devices


def send_when(files, number):
    """Sends this process a signal once the files are there."""

    def wait():
        while not all(file.exists() for file in files):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_reaches_all_runs_and_starts_no_more(fake, capfd, number):
    record, cluster = fake(["saves"] * 4, "cluster.workers=2")
    before = signal.getsignal(number)
    send_when([record.directory / f"ready-{index}" for index in (0, 1)], number)
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (0, 4)
    assert not (record.directory / "started-2").exists()
    assert "2 runs save and stop" in capfd.readouterr().out
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_kills(fake):
    record, cluster = fake(["stubborn"] * 2, "cluster.workers=2")
    send_when([record.directory / f"ready-{index}" for index in (0, 1)], signal.SIGINT)
    send_when([record.directory / f"asked-{index}" for index in (0, 1)], signal.SIGINT)
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (0, 2)


def test_a_signal_that_was_ignored_stays_ignored(fake):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        record, cluster = fake([0, 0], "cluster.workers=1")
        send_when([record.directory / "started-0"], signal.SIGHUP)
        assert local.submit(record, cluster).unfinished == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


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
