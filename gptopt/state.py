"""The state of a run as its directory tells it, and the exit codes of a run.

    new -> running -> {preempted | interrupted -> running}* -> completed | diverged | failed

A terminal marker decides; otherwise the newest attempt and whether somebody holds the
lock. ``status.json`` only adds words (reason, step) to what these files prove.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.files import read_json

HEARTBEAT_S = 30.0
LEASE_S = 300.0


class ExitCode(IntEnum):
    """How a run's process ends; the same numbers on every back end."""

    DONE = 0  # completed, diverged (a result, too), or completed before
    CRASH = 1
    CONFIG = 2
    DATA = 65
    OUT_OF_MEMORY = 69
    HANG = 70
    CANNOT_CREATE = 73
    STORAGE = 74
    RUN_AGAIN = 75  # stopped with a checkpoint
    BUSY = 76  # somebody else owns the run


@dataclass(frozen=True)
class State:
    """What is known of a run."""

    state: str
    reason: str = ""
    step: int = 0
    max_steps: int | None = None
    attempt: int = 0
    exit_code: int | None = None

    @property
    def terminal(self) -> bool:
        """Whether the run has ended for good."""
        return self.state in layout.TERMINAL


def read_state(run: Path) -> State:
    """The state of the run in directory ``run``; never raises for what it finds there."""
    attempts = layout.attempt_numbers(run)
    attempt = attempts[-1] if attempts else 0
    status = _mapping(read_json(run / layout.STATUS))
    for name, marker in layout.TERMINAL.items():
        if (run / marker).is_file():
            known = status | _mapping(read_json(run / marker)) | {"state": name}
            return _state(known, attempt)
    if not attempts:
        return State("new")
    if owner(run) is not None:
        return _state(status | {"state": "running", "reason": ""}, attempt)
    if status.get("state") == "preempted" and status.get("attempt") == attempt:
        return _state(status, attempt)
    reason = status.get("reason") if status.get("state") == "interrupted" else None
    ended = {"state": "interrupted", "reason": reason or "its process ended without a word"}
    return _state(status | ended, attempt)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _state(known: dict[str, Any], attempt: int) -> State:
    step, max_steps, code = (known.get(key) for key in ("step", "max_steps", "exit_code"))
    return State(
        state=str(known["state"]),
        reason=str(known.get("reason") or ""),
        step=step if isinstance(step, int) else 0,
        max_steps=max_steps if isinstance(max_steps, int) else None,
        attempt=attempt,
        exit_code=code if isinstance(code, int) else None,
    )


def identify() -> dict[str, Any]:
    """Who this process is: host, boot, process and, inside SLURM, job and restart count."""
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "job": job_id(),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def boot_id() -> str:
    """Changes at every start of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def job_id() -> str:
    """The SLURM job this process runs in (array elements apart), or an empty string."""
    return os.environ.get("SLURM_JOB_ID", "")


def job_name() -> str:
    """What SLURM's commands call this process's job: ``12``, or ``10_3`` in an array.

    An element has a number of its own as well, but the last one shares it with the array.
    """
    array, element = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{element}" if array else job_id()


def owner(run: Path, *, held: bool | None = None, now: float | None = None) -> dict | None:
    """The attempt record of whoever runs ``run`` at present, or None.

    The lock is exact on this machine and wherever the file system carries flock. Where it
    does not, an attempt of another host counts as alive while its heartbeat is younger
    than ``LEASE_S``. An earlier start of the SLURM job this process runs in owns nothing more.

    Args:
        run: Run directory.
        held: Whether the lock is held by somebody else; found out when None.
        now: The file server's time, for a caller that just touched a file there.
    """
    record = newest_record(run)
    if is_replaced(record):
        return None
    if lock_is_held(run) if held is None else held:
        return record
    if not record or record.get("ended") or record.get("host") == socket.gethostname():
        return None
    try:
        newest = layout.attempt_file(run, layout.attempt_numbers(run)[-1])
        age = (time.time() if now is None else now) - newest.stat().st_mtime
    except OSError:
        return None
    return record if age < LEASE_S else None


def newest_record(run: Path) -> dict[str, Any]:
    """Who began the newest attempt of ``run``, as ``identify`` tells it; empty without one."""
    attempts = layout.attempt_numbers(run)
    return _mapping(read_json(layout.attempt_file(run, attempts[-1]))) if attempts else {}


def is_replaced(record: dict[str, Any]) -> bool:
    """Whether an attempt belongs to an earlier start of the SLURM job this process runs in."""
    me = identify()
    same_job = bool(me["job"]) and me["job"] == record.get("job")
    return same_job and me["restart"] > record.get("restart", 0)


def lock_is_held(run: Path) -> bool:
    """Whether a living process holds the lock of ``run``."""
    try:
        descriptor = os.open(run / layout.LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
