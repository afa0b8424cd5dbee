"""A bounded number of runs at the same time, each a process of its own.

A crash costs one run. Requests to stop are passed on to all of them: they save, end with 75, and
a later turn goes on from there. A second request kills.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from gptopt import layout
from gptopt.dispatch import Submission
from gptopt.dispatch.rest import is_over
from gptopt.dispatch.start import Process, Starter
from gptopt.dispatch.watch import Watch, duration
from gptopt.files import read_json
from gptopt.state import ExitCode, read_state
from gptopt.sweep.record import Record, Row

POLL_S = 0.1
MOST_STILLBORN = 10
"""So many runs in a row that end before they begin, and no further one is started: then not they
are at fault, but what all of them need, such as a file system that is not mounted here."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
JOB_SIGNALS = (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Task:
    """A run at work."""

    row: Row
    place: int
    process: Process
    began: float
    attempt: int

    @property
    def run(self) -> Path:
        """Its directory."""
        return Path(self.row.run)


def work(
    record: Record,
    rows: Iterator[Row],
    places: Sequence[Mapping[str, str]],
    starter: Starter,
    *,
    total: int,
    signals: Sequence[signal.Signals] = STOP_SIGNALS,
) -> Submission:
    """Runs ``rows``, as many at a time as there are places, and returns when all have ended.

    Args:
        record: The submission.
        rows: What to run; the next is asked for when a place is free for it.
        places: What a run in each place adds to the environment.
        starter: Starts a run.
        total: How many runs a person expects.
        signals: Those that ask to save and stop.
    """
    free = deque(range(len(places)))
    running: list[Task] = []
    failed = stopped = stillborn = 0
    is_ending = False  # a run found that its time is over: so is that of the next
    with _Interrupts(signals) as interrupts, Watch(total) as watch:
        try:
            row = next(rows, None)
            while running or (row and not is_ending):
                while row and free and not is_ending and starter.is_ready():
                    place = free.popleft()
                    attempt = read_state(Path(row.run)).attempt
                    process = starter.start(row, places[place])
                    running.append(Task(row, place, process, time.monotonic(), attempt))
                    row = next(rows, None)
                if number := interrupts.take():
                    _pass_on(running, number, interrupts.count, watch)
                for task in [task for task in running if task.process.poll() is not None]:
                    running.remove(task)
                    free.append(task.place)
                    outcome, words = _outcome(record, task, bool(interrupts.count))
                    failed += outcome == "failed"
                    stopped += outcome in ("stopped", "preempted")
                    is_ending |= outcome == "preempted"
                    watch.end(task.run, words)
                    has_begun = read_state(task.run).attempt > task.attempt
                    stillborn = stillborn + 1 if outcome == "failed" and not has_begun else 0
                    if stillborn == MOST_STILLBORN and row and not is_ending:
                        is_ending = True
                        watch.say(
                            f"{stillborn} runs in a row failed before they began: no more start"
                        )
                is_ending |= bool(interrupts.count) or is_over(record)
                watch.look([task.run for task in running])
                time.sleep(POLL_S)
        finally:
            for task in running:  # only after an error of ours
                _signal(task, signal.SIGTERM)
            starter.close()
    unfinished = stopped + bool(row) + sum(1 for _ in rows)
    message = f"{failed} failed, {unfinished} unfinished" if failed or unfinished else "all ended"
    return Submission(message, failed=failed, unfinished=unfinished)


def _pass_on(running: list[Task], number: int, count: int, watch: Watch) -> None:
    if count == 1:
        watch.say(f"{signal.Signals(number).name}: {len(running)} runs save and stop")
        passed_on = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    elif number in STOP_SIGNALS:
        watch.say("asked again: killed")
        passed_on = signal.SIGKILL
    else:
        return  # SLURM says it more than once
    for task in running:
        _signal(task, passed_on)


def _signal(task: Task, number: int) -> None:
    if task.process.poll() is None:
        os.killpg(task.process.pid, number)


def _outcome(record: Record, task: Task, stopping: bool) -> tuple[str, str]:
    """(done, stopped, preempted or failed; words for a line) of a run whose process has ended."""
    code, state = task.process.poll(), read_state(task.run)
    took = duration(time.monotonic() - task.began)
    assert code is not None
    if code == ExitCode.DONE:
        marker = read_json(task.run / layout.TERMINAL[state.state]) if state.terminal else None
        loss = ((marker or {}).get("final") or {}).get("val_loss")
        shown = state.reason if loss is None else f"val_loss {loss:.4f}"
        return "done", f"{state.state}: {shown}, {took}"
    if code == ExitCode.BUSY:
        return "done", "is being run by somebody else"
    if code == ExitCode.RUN_AGAIN or (stopping and state.state != "failed"):
        was_told = state.state == "preempted"
        return "preempted" if was_told else "stopped", f"stopped at step {state.step}, {took}"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    reason = f": {state.reason}" if state.state == "failed" else ""
    return "failed", f"failed, {how}{reason}; see {record.log(task.row.index)}"


class _Interrupts:
    """Counts requests to stop while it is entered."""

    def __init__(self, signals: Sequence[signal.Signals]) -> None:
        self.count = 0
        self._signals = signals
        self._new: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        for number in self._signals:
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
