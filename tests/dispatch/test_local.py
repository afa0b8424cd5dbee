"""The pool of workers on this machine, with a stand-in for the training job."""

import os
import signal
import threading
import time

import pytest
from stand_in import told

from gptopt import dispatch
from gptopt.dispatch import local


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
    assert record.log(1).read_text() == "below Python\nwords of run 1\n"
    said = capfd.readouterr().out
    assert f"failed, exit code 1; see {record.log(1)}" in said
    assert f"failed, signal SIGKILL; see {record.log(2)}" in said
    assert "is being run by somebody else" in said
    assert "[6/6]" in said


def test_when_one_run_after_the_other_fails_before_it_begins_no_more_are_started(fake, capfd):
    record, cluster = fake([0, *[1] * 9, 0, *[1] * 12], "cluster.workers=1")
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (19, 2)
    assert len(told(record)) == 21
    assert "10 runs in a row failed before they began: no more start" in capfd.readouterr().out


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
        ("4,7", ["cluster.workers_per_gpu=2"], ["4", "7", "4", "7"]),
        ("GPU-a,GPU-b", [], ["GPU-a", "GPU-b"]),
        ("", ["cluster.workers=2"], [None, None]),
    ],
)
def test_every_worker_sees_one_gpu(fake, monkeypatch, visible, settings, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    record, cluster = fake([0], *settings)
    environments = local.environments(record, cluster)
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


@pytest.mark.parametrize("kind", ["forked"], indirect=True)
def test_runs_whose_origin_is_killed_stop_and_the_others_have_a_new_one(fake):
    record, cluster = fake(["kills its parent", 0, 0], "cluster.workers=1")
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (0, 1)
    assert len(told(record)) == 2


@pytest.mark.parametrize("kind", ["forked"], indirect=True)
def test_runs_that_cannot_import_anything_are_told_once(fake, monkeypatch, capfd):
    record, cluster = fake([0, 0], "cluster.workers=1")
    monkeypatch.setattr("gptopt.dispatch.start.WARM_MODULE", "no_such_module")
    with pytest.raises(dispatch.SubmissionError, match="python -m no_such_module ended with 1"):
        local.submit(record, cluster)
    assert "No module named no_such_module" in capfd.readouterr().err


def test_a_run_whose_time_is_over_ends_the_turn(fake):
    record, cluster = fake(["preempted", 0, 0], "cluster.workers=1")
    submission = local.submit(record, cluster)
    assert (submission.failed, submission.unfinished) == (0, 3)
    assert told(record) == []


def test_a_cancelled_submission_stops_what_it_runs_and_starts_no_more(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))
    record, cluster = fake(["watches", "watches", 0], "cluster.workers=2")
    thread = threading.Thread(target=cancel_when_running, args=(record,))
    thread.start()
    submission = local.submit(record, cluster)
    thread.join()
    assert (submission.failed, submission.unfinished) == (0, 3)
    assert told(record) == []


def cancel_when_running(record):
    while len(list(record.directory.glob("ready-*"))) < 2:
        time.sleep(0.01)
    assert dispatch.cancel(record) == 2
