"""This machine: a bounded number of runs at the same time, each a process of its own.

A crash costs one run. Ctrl-C, SIGTERM and SIGHUP are passed on to all of them: they save, end
with 75, and the next submission goes on from there; a second Ctrl-C kills.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from gptopt import layout
from gptopt.config.resolvers import cpu_count, device_count
from gptopt.config.schema import Cluster
from gptopt.dispatch import Submission
from gptopt.dispatch.watch import Watch, duration
from gptopt.files import read_json
from gptopt.state import ExitCode, read_state
from gptopt.sweep.record import JOB_MODULE, Record, Row

POLL_S = 0.1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Task:
    """A run at work."""

    row: Row
    slot: int
    process: subprocess.Popen[bytes]
    began: float

    @property
    def run(self) -> Path:
        """Its directory."""
        return Path(self.row.run)


def submit(record: Record, cluster: Cluster) -> Submission:
    """Works through the submitted rows and returns when all have ended."""
    slots = environments(cluster)
    waiting = deque(record.submitted())
    free = deque(range(len(slots)))
    running: list[Task] = []
    failed = stopped = 0
    with _Interrupts() as interrupts, Watch(len(waiting)) as watch:
        try:
            while running or (waiting and not interrupts.count):
                while waiting and free and not interrupts.count:
                    slot = free.popleft()
                    running.append(_start(record, waiting.popleft(), slot, slots[slot]))
                if number := interrupts.take():
                    _pass_on(running, number, interrupts.count, watch)
                for task in [task for task in running if task.process.poll() is not None]:
                    running.remove(task)
                    free.append(task.slot)
                    outcome, words = _outcome(record, task, bool(interrupts.count))
                    failed += outcome == "failed"
                    stopped += outcome == "stopped"
                    watch.end(task.run, words)
                watch.look([task.run for task in running])
                time.sleep(POLL_S)
        finally:
            for task in running:  # only after an error of ours
                _signal(task, signal.SIGTERM)
    unfinished = stopped + len(waiting)
    message = f"{failed} failed, {unfinished} unfinished" if failed or unfinished else "all ended"
    return Submission(message, failed=failed, unfinished=unfinished)


def environments(cluster: Cluster) -> list[dict[str, str]]:
    """What each worker adds to the environment: its GPU, its share of the cores.

    The share depends on the number of workers, not on that of runs left: the thread count
    enters the last bits of a run, and a resumed run should keep its own.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = device_count()
    gpus = visible.split(",") if visible and count else [str(number) for number in range(count)]
    workers = cluster.workers or len(gpus) or cpu_count()
    threads = str(cluster.threads or max(1, cpu_count() // workers))
    common = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    common |= {name: str(value) for name, value in cluster.env.items()}
    return [
        common | ({"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if gpus else {})
        for worker in range(workers)
    ]


def _start(record: Record, row: Row, slot: int, environment: dict[str, str]) -> Task:
    command = [sys.executable, "-m", JOB_MODULE, str(record.directory), str(row.index)]
    with open(record.log(row.index), "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            process_group=0,  # a terminal's Ctrl-C comes here alone, and is passed on once
        )
    return Task(row, slot, process, time.monotonic())


def _pass_on(running: list[Task], number: int, count: int, watch: Watch) -> None:
    if count == 1:
        watch.say(f"{signal.Signals(number).name}: {len(running)} runs save and stop")
        passed_on = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    else:
        watch.say("asked again: killed")
        passed_on = signal.SIGKILL
    for task in running:
        _signal(task, passed_on)


def _signal(task: Task, number: int) -> None:
    if task.process.poll() is None:
        os.killpg(task.process.pid, number)


def _outcome(record: Record, task: Task, stopping: bool) -> tuple[str, str]:
    """(done, stopped or failed; words for a line) of a run whose process has ended."""
    code, state = task.process.returncode, read_state(task.run)
    took = duration(time.monotonic() - task.began)
    if code == ExitCode.DONE:
        marker = read_json(task.run / layout.TERMINAL[state.state]) if state.terminal else None
        loss = ((marker or {}).get("final") or {}).get("val_loss")
        shown = state.reason if loss is None else f"val_loss {loss:.4f}"
        return "done", f"{state.state}: {shown}, {took}"
    if code == ExitCode.BUSY:
        return "done", "is being run by somebody else"
    if code == ExitCode.RUN_AGAIN or (stopping and state.state != "failed"):
        return "stopped", f"stopped at step {state.step}, {took}"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    reason = f": {state.reason}" if state.state == "failed" else ""
    return "failed", f"failed, {how}{reason}; see {record.log(task.row.index)}"


class _Interrupts:
    """Counts requests to stop while it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._new: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a background job
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._new = number

    def take(self) -> int | None:
        """The signal that came since the last call, if any."""
        number, self._new = self._new, None
        return number
