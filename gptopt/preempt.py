"""Requests to stop: signals, a deadline, a stop file. They set a flag, nothing more.

The loop reads the flag at the border between two steps, saves, and ends with exit code 75.
Work inside a signal handler would find half-updated state.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from gptopt.state import job_name

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
MARGIN_S = 10.0

log = logging.getLogger(__name__)


class StopRequest:
    """Collects requests to stop while it is entered; the previous handlers come back after."""

    def __init__(self, stop_file: Path, deadline: float | None) -> None:
        self.stop_file = stop_file
        self.deadline = deadline
        self.slowest_step = 0.0
        self.slowest_save = 0.0
        self._signal: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            for number in SIGNALS:
                self.previous[number] = signal.signal(number, self._handle)
        except ValueError:
            log.warning("not the main thread: signals will not stop this run in good order")
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once, without saving
        self._signal = number

    def check(self) -> tuple[str, str] | None:
        """(state, reason) when the run should stop at this step border, else None."""
        if self._signal is not None:
            state = "interrupted" if self._signal == signal.SIGINT else "preempted"
            return state, signal.Signals(self._signal).name
        margin = MARGIN_S + 2 * self.slowest_save + 3 * self.slowest_step
        if self.deadline is not None and time.time() > self.deadline - margin:
            return "preempted", f"deadline in {self.deadline - time.time():.0f} s"
        if self.stop_file.exists():
            return "interrupted", "stop file"
        return None


def find_deadline(configured: str | float | None) -> float | None:
    """Unix time at which this job ends, as far as anybody says.

    ``cluster.deadline`` first, then GPTOPT_DEADLINE and SLURM_JOB_END_TIME, then SLURM itself,
    asked once (older versions do not set the variable).

    Raises:
        ValueError: The configured deadline is neither a unix time nor an ISO date and time.
    """
    for source in (configured, os.environ.get("GPTOPT_DEADLINE")):
        if source is not None:
            return parse_deadline(source)
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end)
    job = job_name()
    if not job:
        return None
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%e"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return datetime.fromisoformat(answer.stdout.split()[0]).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        log.warning("SLURM does not tell when job %s ends: %s", job, error)
        return None


def parse_deadline(value: str | float) -> float:
    """A unix time, or a date and time such as 2026-01-31T12:00 in local time."""
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        words = "a deadline is a unix time, or a date and time such as 2026-01-31T12:00"
        raise ValueError(f"{value!r}: {words}") from None
