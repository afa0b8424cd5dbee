"""Starting a run as a process: from nothing, or as a fork of one that has imported everything.

Both kinds run the same code on the same row and end with the same exit codes; a fork starts
some seconds of imports later. docs/decisions/0006-packed-runs-are-forks.md says why a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from gptopt.dispatch import SubmissionError
from gptopt.state import ExitCode
from gptopt.sweep.record import JOB_MODULE, Record, Row

WARM_MODULE = "gptopt.warm"
NEVER_STARTED = 0


class Process(Protocol):
    """A run's process; the leader of a process group of its own."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None."""


class Starter(Protocol):
    """Starts the runs of a record."""

    def is_ready(self) -> bool:
        """Whether ``start`` would answer at once; if not, the way there goes on."""

    def start(self, row: Row, environment: Mapping[str, str]) -> Process:
        """Starts a run whose output is appended to its log.

        Args:
            row: What to run.
            environment: Added to that of this process.
        """

    def close(self) -> None:
        """No more runs are started."""


class Cold:
    """A new interpreter for every run."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def is_ready(self) -> bool:
        """Always."""
        return True

    def start(self, row: Row, environment: Mapping[str, str]) -> Process:
        """See ``Starter``."""
        command = [sys.executable, "-m", JOB_MODULE, str(self._record.directory), str(row.index)]
        with open(self._record.log(row.index), "ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                process_group=0,  # a terminal's Ctrl-C comes here alone, and is passed on once
            )

    def close(self) -> None:
        """Nothing is kept."""


class Warm:
    """Forks of one process that has imported everything; where it dies, a new one follows.

    Args:
        record: The submission.
        environment: Of all its runs, before the first import: the thread counts.
    """

    def __init__(self, record: Record, environment: Mapping[str, str]) -> None:
        self._record = record
        self._environment = environment
        self._origin: _Origin | None = None

    def is_ready(self) -> bool:
        """See ``Starter``.

        Raises:
            SubmissionError: The imports fail; their words are on standard error.
        """
        if self._origin is None or self._origin.is_gone():
            self._origin = _Origin(self._environment)
        return self._origin.listen()

    def start(self, row: Row, environment: Mapping[str, str]) -> Process:
        """See ``Starter``."""
        assert self._origin is not None
        return self._origin.fork(
            {
                "record": str(self._record.directory),
                "index": row.index,
                "log": str(self._record.log(row.index)),
                "environment": dict(environment),
            }
        )

    def close(self) -> None:
        """See ``Starter``."""
        if self._origin is not None:
            self._origin.close()


class _Origin:
    """The process that runs are forked from, seen from outside."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", WARM_MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            start_new_session=True,  # a terminal's signals do not come here
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._unread = b""
        self._is_ready = False
        self._started: list[int] = []
        self.codes: dict[int, int] = {}

    def is_gone(self) -> bool:
        """Whether it has died; before it was ready, another one would die the same way."""
        code = self._process.poll()
        if code is not None and not self.listen():
            words = f"python -m {WARM_MODULE} ended with {code}"
            raise SubmissionError(f"No run can be started: {words}. cluster.runs_per_job=1 helps?")
        return code is not None

    def listen(self, patience: float = 0.0) -> bool:
        """Takes in what it says within ``patience`` seconds; whether it has said it is ready."""
        while select.select([self._answers], [], [], patience)[0]:
            data = os.read(self._answers, 2**16)
            if not data:
                break
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            patience = 0.0
        return self._is_ready

    def _take(self, said: dict[str, Any]) -> None:
        if "ended" in said:
            self.codes[said["ended"]] = said["code"]
        elif "started" in said:
            self._started.append(said["started"])
        else:
            self._is_ready = True

    def fork(self, request: dict[str, Any]) -> Process:
        """A run; one that cannot be started any more counts as killed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, f"{json.dumps(request)}\n".encode())
            while not self._started and self._process.poll() is None:
                self.listen(1.0)
        if self._started:
            return _Fork(self, self._started.pop())
        self._process.kill()
        self._process.wait()
        return _Fork(self, NEVER_STARTED)

    def code(self, pid: int) -> int | None:
        """How the run with this process ended, None while it is at work."""
        self.listen()
        if pid in self.codes or self._process.poll() is None:
            return self.codes.get(pid)
        if pid == NEVER_STARTED:
            return -signal.SIGKILL
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ExitCode.RUN_AGAIN  # told to stop as its origin died; its directory knows more
        return None

    def close(self) -> None:
        """Lets it end: at once, where it is still importing, else after its last run."""
        if not self.listen():
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._process.wait()


class _Fork:
    """A run that is a child of an origin."""

    def __init__(self, origin: _Origin, pid: int) -> None:
        self.pid = pid
        self._origin = origin

    def poll(self) -> int | None:
        """See ``Process``."""
        return self._origin.code(self.pid)
