"""Owning a run directory: one trainer at a time, and an old one notices that it is replaced.

1. ``flock`` on ``lock``: exact on one machine, freed by kill -9. A SLURM job that was requeued
   puts a new lock in the place of the one that its earlier start may hold.
2. ``attempts/NNNN.json``, created exclusively: the fencing token. Its modification time is
   the heartbeat, for file systems that do not carry flock between hosts.
3. Before anything is committed (checkpoint, terminal marker, status) ``fence`` looks
   whether a newer attempt exists. After a node failure two copies of a job can live for a
   while; only the newest attempt may write.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from gptopt import files, layout
from gptopt.state import (
    HEARTBEAT_S,
    ExitCode,
    State,
    identify,
    is_replaced,
    newest_record,
    owner,
    read_state,
)


class BusyError(RuntimeError):
    """Somebody else runs this; ends a process with 76."""

    exit_code = ExitCode.BUSY


class CannotCreateError(OSError):
    """The run directory cannot be made; ends a process with 73."""

    exit_code = ExitCode.CANNOT_CREATE


class Lease:
    """The right of this process to write to a run directory, from ``take`` to ``release``."""

    def __init__(self, run: Path, attempt: int, descriptor: int, before: State) -> None:
        self.run = run
        self.attempt = attempt
        self.before = before
        self._descriptor = descriptor
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    @classmethod
    def take(cls, run: Path) -> Lease:
        """Becomes the owner of ``run``, which is created when it does not exist.

        Raises:
            BusyError: A living process owns it; the message names it.
            CannotCreateError: The file system refuses.
        """
        descriptor = _locked(run)
        try:
            os.utime(run / layout.LOCK)
            now = os.fstat(descriptor).st_mtime
            if owner(run, held=False, now=now) is not None:
                raise busy(run)
            before = read_state_locked(run)
            attempt = _next_attempt(run)
            for directory in (run, run / layout.ATTEMPTS, (run / layout.COMPOSED).parent):
                files.sweep(directory)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(run, attempt, descriptor, before)

    def fence(self) -> None:
        """Call before every commit.

        Raises:
            BusyError: A newer attempt has taken over; write nothing more.
        """
        newest = max(layout.attempt_numbers(self.run), default=0)
        if newest > self.attempt:
            record = files.read_json(layout.attempt_file(self.run, newest)) or {}
            raise BusyError(
                f"attempt {newest} ({_words(record)}) has taken over {self.run};"
                f" this one, attempt {self.attempt}, stops without writing."
            )
        if not _is_lock_of(self._descriptor, self.run):
            raise BusyError(
                f"{self.run} was moved aside, deleted or taken over by somebody else;"
                f" attempt {self.attempt} stops without writing."
            )

    def note(self, **facts: Any) -> None:
        """Adds facts to the record of this attempt (start step, environment)."""
        path = layout.attempt_file(self.run, self.attempt)
        files.write_json(path, (files.read_json(path) or {}) | facts, durable=False)

    def status(self, state: str, **facts: Any) -> None:
        """Rewrites ``status.json``: a hint for people and tools; a full disk may cost it."""
        self.fence()
        content = {"state": state, **facts, "attempt": self.attempt, "updated": time.time()}
        with contextlib.suppress(OSError):
            files.write_json(self.run / layout.STATUS, content, durable=False)

    def finish(self, state: str, facts: dict[str, Any]) -> None:
        """Writes the terminal marker, after all that it vouches for is on disk."""
        self.fence()
        content = {"state": state, **facts, "attempt": self.attempt, "time": time.time()}
        files.write_json(self.run / layout.TERMINAL[state], content)

    def end(self, facts: dict[str, Any], max_steps: int) -> None:
        """Records how an attempt ended in good order: the terminal marker first, if it is one.

        Args:
            facts: ``state``, ``reason``, ``step`` and the numbers the marker holds.
            max_steps: Steps of the run.
        """
        state, code = facts["state"], ExitCode.RUN_AGAIN
        saved = {"saved_step": facts["step"]}
        if state in layout.TERMINAL:
            code, saved = ExitCode.DONE, {}
            losses = {
                key: {name: _finite(value) for name, value in facts[key].items()}
                for key in ("final", "best")
            }
            self.finish(state, {k: v for k, v in facts.items() if k != "state"} | losses)
        hint = {"reason": facts["reason"], "step": facts["step"], "max_steps": max_steps}
        self.status(state, **hint, **saved, exit_code=int(code))

    def release(self) -> None:
        """Gives the directory up; safe to repeat."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._heart.join()
        with contextlib.suppress(OSError, BusyError):
            self.fence()
            self.note(ended=time.time())
        os.close(self._descriptor)

    def _beat(self) -> None:
        record = layout.attempt_file(self.run, self.attempt)
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self.fence()
                os.utime(record)
            except BusyError:
                return  # the next commit tells
            except OSError:
                continue  # a file server's hiccup; the lease outlives several beats


def busy(run: Path) -> BusyError:
    """The error that names who owns ``run``."""
    record: dict[str, Any] = {}
    for _ in range(20):
        time.sleep(0.05)  # who has just won the lock has yet to write its name
        record = owner(run) or record
        if "pid" in record and "ended" not in record:
            break
    return BusyError(f"{run} is being run by {_words(record)}, at step {read_state(run).step}.")


def move_aside(run: Path) -> Path | None:
    """Makes room for a fresh run: ``run`` becomes ``.aside/<run_name>-<n>`` beside it.

    Raises:
        BusyError: A living process owns it.
    """
    if not run.exists():
        return None
    descriptor = os.open(run / layout.LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        _lock(descriptor, run)
        if owner(run, held=False) is not None:
            raise busy(run)
        aside = run.parent / ".aside"
        aside.mkdir(exist_ok=True)
        number = 1
        while (target := aside / f"{run.name}-{number}").exists():
            number += 1
        os.rename(run, target)
        return target
    finally:
        os.close(descriptor)


def read_state_locked(run: Path) -> State:
    """The state before this process came: its own lock does not count as running."""
    state = read_state(run)
    return State("interrupted", "", state.step) if state.state == "running" else state


def _locked(run: Path) -> int:
    """Descriptor of the lock of ``run``, held; the directory is created where it is missing."""
    while True:
        try:
            (run / layout.ATTEMPTS).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(run / layout.LOCK, os.O_RDWR | os.O_CREAT, 0o640)
        except OSError as error:
            raise CannotCreateError(f"cannot create the run directory {run}: {error}") from error
        try:
            _lock(descriptor, run)
        except BusyError:
            os.close(descriptor)
            if not is_replaced(newest_record(run)):
                raise
            return _new_lock(run)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_lock_of(descriptor, run):
            return descriptor
        os.close(descriptor)  # of a directory that was moved aside in this moment


def _new_lock(run: Path) -> int:
    """A held lock in place of the one that an earlier start of this job still holds.

    SLURM starts a job again when it has lost its node, and processes may live on there.
    """
    path = run / f"{layout.LOCK}.{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(path, run / layout.LOCK)
    return descriptor


def _is_lock_of(descriptor: int, run: Path) -> bool:
    """Whether ``run`` still is the directory whose lock was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(run / layout.LOCK))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, run: Path) -> None:
    for patience in (0.02, 0.05, 0.1, 0.2, None):  # a reader of the state holds it for an instant
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if patience is None:
                raise busy(run) from None
            time.sleep(patience)


def _next_attempt(run: Path) -> int:
    content = json.dumps(identify() | {"started": time.time()}, indent=1)
    number = (layout.attempt_numbers(run) or [0])[-1] + 1
    while True:
        try:
            path = layout.attempt_file(run, number)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as file:
                file.write(content)
            return number
        except FileExistsError:
            number += 1


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite is null there."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _words(record: dict[str, Any]) -> str:
    job = f", SLURM job {record['job']}" if record.get("job") else ""
    began = record.get("started")
    since = f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began))}" if began else ""
    return f"process {record.get('pid', '?')} on {record.get('host', 'another host')}{job}{since}"
