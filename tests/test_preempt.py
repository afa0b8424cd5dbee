"""A run that is asked to stop saves at the next step border, and the same command goes on."""

import contextlib
import functools
import os
import signal
import time
from datetime import datetime

import pytest
from tiny import (
    checkpoints,
    end,
    in_step,
    result,
    signal_in_step,
    start,
    stopped_at,
    tiny,
)

import gptopt
from gptopt import layout
from gptopt.config.identity import run_directory
from gptopt.preempt import MARGIN_S, SIGNALS, StopRequest, find_deadline
from gptopt.state import read_state


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a run leaves that nobody disturbs."""
    return result(gptopt.train(tiny(tmp_path_factory.mktemp("undisturbed"))).run)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("SIGTERM", "preempted"),
        ("SIGUSR1", "preempted"),
        ("SIGUSR2", "preempted"),
        ("SIGINT", "interrupted"),
    ],
)
def test_a_signal_during_a_step_saves_that_step_and_the_same_command_goes_on(
    tmp_path, expected, name, state
):
    config = tiny(tmp_path)
    run = run_directory(config)
    setup = functools.partial(signal_in_step, 10, getattr(signal, name))
    assert end(start(config, tmp_path / "log", setup)) == 75
    assert (read_state(run).state, read_state(run).reason) == (state, name)
    assert (read_state(run).step, read_state(run).exit_code) == (10, 75)
    assert checkpoints(run)[-1] == "step-00000010"
    assert "run the same command again to go on from step 10" in (tmp_path / "log").read_text()
    assert end(start(config)) == 0
    assert result(run) == expected


def test_a_storm_of_signals_costs_no_bit(tmp_path, expected):
    config = tiny(tmp_path)
    code, attempts = 75, 0
    while code != 0:
        process = start(config, tmp_path / "log")
        number = 0
        while process.is_alive():
            time.sleep(0.005)
            if (run_directory(config) / "metrics.0001.jsonl").exists() and attempts < 10:
                _send(process.pid, (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)[number % 3])
                number += 1
        code = end(process)
        # -n: the signal came before the handlers were there, or after they were taken down
        assert code in (0, 75, -signal.SIGUSR1, -signal.SIGUSR2, -signal.SIGTERM)
        attempts += 1
    assert attempts > 2
    assert result(run_directory(config)) == expected


def _send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def test_a_stop_file_stops_a_run_and_is_gone_when_it_goes_on(tmp_path, expected):
    config = tiny(tmp_path)
    run = run_directory(config)
    with in_step(7, (run / layout.STOP_FILE).touch):
        stopped = gptopt.train(config)
    assert (stopped.state, stopped.reason, stopped.step) == ("interrupted", "stop file", 7)
    assert stopped.exit_code == 75
    assert gptopt.train(config).state == "completed"
    assert result(run) == expected


def test_a_run_stops_before_its_deadline_without_any_signal(tmp_path, expected):
    config = tiny(tmp_path, f"cluster.deadline={time.time() + MARGIN_S}")
    stopped = gptopt.train(config)
    assert (stopped.state, stopped.step) == ("preempted", 1)
    assert stopped.reason.startswith("deadline in ")
    # An hour is enough. The deadline does not make another run of it.
    assert gptopt.train(tiny(tmp_path, f"cluster.deadline={time.time() + 3600}")).step == 24
    assert result(stopped.run) == expected


def test_a_second_ctrl_c_stops_at_once_and_the_newest_checkpoint_stands(tmp_path, expected):
    config = tiny(tmp_path)
    run = run_directory(config)
    assert end(start(config, tmp_path / "log", _interrupt_twice)) == 130
    assert read_state(run).state == "interrupted"
    assert checkpoints(run) == ["step-00000004", "step-00000008"]
    assert end(start(config)) == 0
    assert result(run) == expected


def _interrupt_twice():
    signal_in_step(10, signal.SIGINT)
    signal_in_step(10, signal.SIGINT)


def test_a_request_in_the_last_step_lets_the_run_complete(tmp_path, expected):
    config = tiny(tmp_path)
    with in_step(24, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert gptopt.train(config).state == "completed"
    assert result(run_directory(config)) == expected


def test_a_stop_can_come_in_every_step_of_a_run(tmp_path):
    settings = ("checkpoint.save_interval=null", "training.training_params.max_steps=7")
    undisturbed = gptopt.train(tiny(tmp_path / "undisturbed", *settings)).run
    config = tiny(tmp_path / "stopped", *settings)
    for number in range(1, 7):
        with in_step(1, lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            assert gptopt.train(config).step == number
    assert gptopt.train(config).state == "completed"
    assert result(run_directory(config)) == result(undisturbed)


def test_the_handlers_of_before_come_back(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    stopped_at(tiny(tmp_path), 3)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_nothing_asks_to_stop_by_itself(tmp_path):
    with StopRequest(tmp_path / "stop", None) as stop:
        assert stop.check() is None
    with StopRequest(tmp_path / "stop", time.time() + MARGIN_S + 60) as stop:
        assert stop.check() is None
        stop.slowest_save = 60.0  # two of them may have to fit
        assert stop.check() is not None


# --- when a job ends ----------------------------------------------------------------------------

NOON = "2026-01-31T12:00:00"


def test_a_deadline_is_a_unix_time_or_a_local_date_and_time():
    local = datetime(2026, 1, 31, 12).timestamp()
    assert find_deadline(NOON) == local
    assert find_deadline(local) == local
    assert find_deadline(str(local)) == local
    assert find_deadline(None) is None
    with pytest.raises(ValueError, match="'noon'.*2026-01-31T12:00"):
        find_deadline("noon")


def test_the_nearest_word_about_the_deadline_counts(monkeypatch, tmp_path):
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\n[ "$3" = 42 ] && echo {NOON}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_deadline(None) is None
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert find_deadline(None) == datetime(2026, 1, 31, 12).timestamp()
    monkeypatch.setenv("SLURM_JOB_END_TIME", "3")
    assert find_deadline(None) == 3
    monkeypatch.setenv("GPTOPT_DEADLINE", "2")
    assert find_deadline(None) == 2
    assert find_deadline(1) == 1


def test_a_slurm_that_does_not_answer_costs_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    for answer in ("exit 1", "echo", "echo UNLIMITED", None):
        squeue = tmp_path / "squeue"
        squeue.unlink(missing_ok=True)
        if answer is not None:
            squeue.write_text(f"#!/bin/sh\n{answer}\n")
            squeue.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        caplog.clear()
        assert find_deadline(None) is None
        assert "when job 42 ends" in caplog.text
