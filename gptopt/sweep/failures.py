"""Why a run has no result, as its directory tells it, and whether starting it again may help."""

from __future__ import annotations

import re
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from gptopt.state import ExitCode, State, boot_id, newest_record, read_state

CLASSES = {
    "config": "the numbers contradict each other on that machine or data",
    "data": "a corpus is missing, damaged or too small",
    "out of memory": "the device's or the machine's memory was full",
    "storage": "state could not be saved, or not be loaded",
    "hang": "the watchdog ended a run that no longer got on",
    "crash": "any other error; its last line is told",
    "time limit": "it saved ahead of its job's end",
    "preempted": "it was told to make room, and saved",
    "stopped": "a person stopped it: Ctrl-C or a stop file",
    "node failure": "its process or its machine ended without a word",
    "diverged": "the loss was not finite: a result, never repeated",
}
"""Class of failure -> what it means."""
HELD = ("config", "data", "out of memory")
"""Classes that would fail again: started again only when they are named."""
RETRIED = tuple(name for name in CLASSES if name not in (*HELD, "diverged", "stopped"))

_CODES: dict[int, str] = {
    ExitCode.CONFIG: "config",
    ExitCode.DATA: "data",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.HANG: "hang",
    ExitCode.CANNOT_CREATE: "storage",
    ExitCode.STORAGE: "storage",
}


@dataclass(frozen=True)
class Failure:
    """A class of ``CLASSES``, and the run's own words."""

    name: str
    words: str


def failure(run: Path) -> Failure | None:
    """Why the run in this directory has no result; None while it has one, runs or waits."""
    state = read_state(run)
    name = failure_class(state)
    if name == "node failure":
        return Failure(name, _end(run, state))
    return None if name is None else Failure(name, state.reason)


def failure_class(state: State) -> str | None:
    """The class of failure that a state tells; None where there is none."""
    if state.state == "failed":
        return _CODES.get(state.exit_code or 0, "crash")
    if state.state == "diverged":
        return "diverged"
    if state.state == "preempted":
        return "time limit" if state.reason.startswith("deadline") else "preempted"
    if state.state == "interrupted":
        by_person = state.reason in ("stop file", signal.SIGINT.name) or "Interrupt" in state.reason
        return "stopped" if by_person else "node failure"
    return None


def of_code(code: int | None, words: str) -> Failure:
    """The failure of a process that ended with this exit code."""
    return Failure(_CODES.get(code or 0, "crash"), words)


def is_held(state: State) -> bool:
    """Whether a run in this state would fail again, so that it waits until somebody asks."""
    return failure_class(state) in HELD


def _end(run: Path, state: State) -> str:
    """What is known of a process that ended without a word."""
    record = newest_record(run)
    host, job = record.get("host", "?"), record.get("job")
    if host == socket.gethostname() and record.get("boot") == boot_id():
        return f"its process on {host} was killed after step {state.step}"
    where = f"{host}, job {job}" if job else str(host)
    return f"{where}: {re.sub('^its', 'the', state.reason)}"
