"""Where the metrics of a run go: its own file always, and trackers that follow that file.

Each tracker is a process of its own (``follow``), started here. Training sees it start,
asks now and then whether it still lives, and waits for it a bounded time at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.tracking.metrics import MetricsFile
from gptopt.tracking.processes import kill_tree

__all__ = ["MetricsFile", "Trackers", "start_trackers"]

logger = logging.getLogger(__name__)


def tracker_log(run: Path, name: str) -> Path:
    """Console log of tracker ``name``, all attempts."""
    return run / f"tracker.{name}.log"


@dataclass
class Follower:
    """The process of one tracker."""

    name: str
    process: subprocess.Popen
    finish_timeout: float
    log: Path
    log_start: int

    def last_line(self) -> str:
        """The last line of its log in this attempt, or an empty string."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(self.log_start, os.path.getsize(self.log) - 4096))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def start_trackers(trackers: Mapping[str, Mapping[str, Any]], run: Path, attempt: int) -> Trackers:
    """Starts one process per tracker; one that cannot be started costs a warning.

    Args:
        trackers: Settings by tracker name, as in ``logging.trackers``.
        run: Run directory with resolved.yaml, and run.json where there shall be one.
        attempt: Number of the attempt whose metrics file exists already.
    """
    followers = []
    for name, settings in trackers.items():
        try:
            followers.append(_start(name, settings["finish_timeout"], run, attempt))
        except OSError as error:
            logger.warning("tracker %s was not started: %s. Training goes on.", name, error)
    return Trackers(followers)


def _start(name: str, finish_timeout: float, run: Path, attempt: int) -> Follower:
    log = tracker_log(run, name)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "gptopt.tracking.follow"]
            + [name, str(run.absolute()), str(attempt), str(os.getpid())],
            cwd=layout.PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,  # Ctrl-C stops training, which then ends its trackers
        )
        return Follower(name, process, finish_timeout, log, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class Trackers:
    """The running trackers of one attempt; none of its methods raises."""

    def __init__(self, followers: list[Follower]) -> None:
        self._running = followers

    def poll(self) -> None:
        """Warns of trackers that have ended before the run; costs microseconds."""
        for follower in list(self._running):
            if follower.process.poll() is not None:
                self._running.remove(follower)
                _warn(follower, "ended early")

    def finish(self, timeout: float = float("inf")) -> None:
        """Waits for the trackers to store what they have read; kills those that do not.

        Call it after the "stop" row has been written, which is what they wait for.

        Args:
            timeout: Seconds, where less is left than the trackers' ``finish_timeout``.
        """
        start = time.monotonic()
        for follower in self._running:
            limit = min(follower.finish_timeout, timeout)
            try:
                code = follower.process.wait(max(0.0, start + limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_tree(follower.process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    follower.process.wait(1)
                _warn(follower, f"did not end within {limit:g} s")
                continue
            if code:
                _warn(follower, "has a problem")
            else:
                logger.info("tracker %s: %s", follower.name, follower.last_line() or "done")
        self._running = []


def _warn(follower: Follower, what: str) -> None:
    logger.warning(
        "tracker %s %s: %s. The run's own metrics are complete; see %s.",
        follower.name,
        what,
        follower.last_line().rstrip(".") or "no message",
        follower.log,
    )
