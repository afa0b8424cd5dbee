"""One trainer at a time; an old one notices that it is replaced and writes nothing."""

import fcntl
import functools
import json
import multiprocessing.connection
import os
import signal
import socket
import time
from unittest import mock

import pytest
from tiny import end, in_step, result, snapshot, start, status, tiny, until

import gptopt
from gptopt import layout
from gptopt.config.identity import run_directory
from gptopt.lease import BusyError, CannotCreateError, Lease, move_aside
from gptopt.state import LEASE_S, read_state


def test_a_claim_creates_the_run_and_counts_attempts(tmp_path):
    run = tmp_path / "outputs" / "run"
    for number in (1, 2, 3):
        lease = Lease.take(run)
        assert lease.attempt == number
        assert read_state(run).state == "running"
        lease.release()
        lease.release()
        assert read_state(run).state == "interrupted"


def test_a_second_claim_names_the_process_that_has_the_first(tmp_path):
    lease = Lease.take(tmp_path)
    with pytest.raises(BusyError, match=rf"process {os.getpid()} on {socket.gethostname()}"):
        Lease.take(tmp_path)
    lease.release()
    Lease.take(tmp_path).release()


def test_a_requeued_job_takes_over_from_its_earlier_start_that_lives_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first = Lease.take(tmp_path)  # and goes on, on a node that SLURM believes to be dead
    first.status("running", step=1)
    for job, restart in (("7", "0"), ("8", "1")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
        with pytest.raises(BusyError):
            Lease.take(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert read_state(tmp_path).state == "interrupted"
    second = Lease.take(tmp_path)
    assert second.attempt == 2
    with pytest.raises(BusyError, match="attempt 2 .* has taken over"):
        first.status("running", step=2)
    assert status(tmp_path)["step"] == 1
    first.release()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert read_state(tmp_path).state == "running"
    with pytest.raises(BusyError):
        Lease.take(tmp_path)
    second.release()
    assert read_state(tmp_path).state == "interrupted"


def test_a_directory_that_cannot_be_created_is_said_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreateError, match="file/run"):
        Lease.take(tmp_path / "file" / "run")


def test_an_attempt_may_not_commit_once_a_newer_one_exists(tmp_path):
    lease = Lease.take(tmp_path)
    lease.status("running", step=1)
    layout.attempt_file(tmp_path, 2).write_text(json.dumps({"host": "other", "pid": 7}))
    for commit in (
        lease.fence,
        functools.partial(lease.status, "running", step=2),
        functools.partial(lease.finish, "completed", {}),
    ):
        with pytest.raises(BusyError, match="attempt 2 .process 7 on other. has taken over"):
            commit()
    assert status(tmp_path)["step"] == 1
    lease.release()
    assert "ended" not in json.loads(layout.attempt_file(tmp_path, 2).read_text())


@pytest.mark.parametrize("begun_anew", [False, True])
def test_an_attempt_may_not_commit_once_its_directory_was_moved_aside(tmp_path, begun_anew):
    run = tmp_path / "run"
    lease = Lease.take(run)
    os.rename(run, tmp_path / "aside")  # another host did, whose file system carries no flock
    if begun_anew:
        Lease.take(run).release()  # also attempt 1
    with pytest.raises(BusyError):
        lease.fence()
    lease.release()
    assert begun_anew == run.exists()


def test_a_claim_holds_the_lock_of_the_directory_that_is_there(tmp_path):
    # +force moves the directory away between the moments of opening its lock and of locking it.
    run, flock = tmp_path / "run", fcntl.flock
    Lease.take(run).release()

    def late(descriptor, operation):
        if run.exists() and not (tmp_path / "aside").exists():
            os.rename(run, tmp_path / "aside")
        flock(descriptor, operation)

    with mock.patch("fcntl.flock", late):
        lease = Lease.take(run)
    lease.fence()
    assert lease.attempt == 1
    with pytest.raises(BusyError):
        Lease.take(run)
    lease.release()


def test_a_claim_sweeps_what_killed_writers_left(tmp_path):
    Lease.take(tmp_path).release()
    for leftover in (".status.json.77.tmp", "attempts/.0001.json.77.tmp"):
        (tmp_path / leftover).write_text('{"st')
    Lease.take(tmp_path).release()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "0001.json",
        "0002.json",
        "attempts",
        "lock",
    ]


def test_moving_aside_loses_nothing_and_leaves_a_living_run_alone(tmp_path):
    run = tmp_path / "run"
    assert move_aside(run) is None
    for number in (1, 2):
        lease = Lease.take(run)
        (run / "note").write_text(str(number))
        with pytest.raises(BusyError):
            move_aside(run)
        lease.release()
        aside = move_aside(run)
        assert (aside / "note").read_text() == str(number)
        assert not run.exists()


# --- whole runs ---------------------------------------------------------------------------------

ENDLESS = (
    "training.training_params.max_steps=1000000",
    "logging.logging_params.eval_interval=null",
)


def _meet(barrier):
    barrier.wait(60)


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_of_two_starts_at_the_same_time_exactly_one_trains(tmp_path, rounds):
    config = tiny(tmp_path, *ENDLESS, "checkpoint.save_interval=null")
    run = run_directory(config)
    barrier = multiprocessing.get_context("forkserver").Barrier(2)
    for round_ in range(rounds):
        logs = [tmp_path / f"log-{round_}-{number}" for number in (0, 1)]
        both = [start(config, log, functools.partial(_meet, barrier)) for log in logs]
        multiprocessing.connection.wait([process.sentinel for process in both])
        winner = 0 if both[0].is_alive() else 1
        until(layout.metrics_file(run, round_ + 1).exists)
        (run / layout.STOP_FILE).touch()
        assert [end(both[winner]), end(both[1 - winner])] == [75, 76], logs[winner].read_text()
        named = f"process {both[winner].pid} on {socket.gethostname()}"
        assert named in logs[1 - winner].read_text()
        assert layout.attempt_numbers(run) == list(range(1, round_ + 2))


def _without_flock():
    """As on a file system that does not carry flock between hosts."""
    mock.patch("fcntl.flock").start()
    mock.patch("socket.gethostname", return_value="another-host").start()


def test_a_frozen_owner_that_was_replaced_wakes_up_and_writes_nothing(tmp_path):
    undisturbed = tiny(tmp_path / "undisturbed")
    gptopt.train(undisturbed)
    config = tiny(tmp_path / "frozen")
    run = run_directory(config)
    frozen = start(config, tmp_path / "frozen.log", functools.partial(_stop_in_step, 10))
    until(lambda: _process_state(frozen.pid) == "T")
    record = layout.attempt_file(run, 1)

    # The other host sees a heartbeat that is young: it leaves the run alone.
    assert end(start(config, tmp_path / "early.log", _without_flock)) == 76
    assert f"process {frozen.pid} on" in (tmp_path / "early.log").read_text()
    # It is old: it takes over.
    os.utime(record, (time.time() - 2 * LEASE_S,) * 2)
    assert end(start(config, tmp_path / "late.log", _without_flock)) == 0
    assert result(run) == result(run_directory(undisturbed))

    before = snapshot(run)
    os.kill(frozen.pid, signal.SIGCONT)
    assert end(frozen) == 76
    assert "attempt 2 " in (tmp_path / "frozen.log").read_text()
    assert snapshot(run) == before


def _stop_in_step(step):
    in_step(step, lambda: os.kill(os.getpid(), signal.SIGSTOP)).start()


def _process_state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]
