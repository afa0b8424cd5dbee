"""The process of one tracker: it reads the metrics files of a run and passes the rows on.

    python -m gptopt.tracking.follow TRACKER RUN_DIR ATTEMPT PARENT   beside a training process
    python -m gptopt.tracking.follow TRACKER RUN_DIR                  all of a run, afterwards

The training process only writes its file. A tracker that is missing, dead, frozen or slow
therefore costs no step and changes no bit.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.state import read_state
from gptopt.tracking.interface import RunInfo, Tracker
from gptopt.tracking.metrics import decode
from gptopt.tracking.processes import kill_tree

POLL_S = 0.2


def follow(name: str, run: RunInfo, attempt: int, parent: int) -> str | None:
    """Passes on the rows of ``attempt`` until its "stop" row, or until its process is gone.

    Args:
        name: The tracker.
        run: The run.
        attempt: Number of the attempt.
        parent: Process id of the training process, which started this one.

    Returns:
        What the tracker could not do as asked, or None.
    """
    settings = run.config["logging"]["trackers"][name]
    threading.Thread(
        target=_end_after, args=(parent, settings["finish_timeout"]), daemon=True
    ).start()
    tracker = build_tracker(name, run)
    state = "interrupted"
    for row in rows(layout.metrics_file(run.path, attempt), lambda: os.getppid() != parent):
        state = row.get("state", state)
        _pass_on(row, tracker)
    return tracker.finish(state)


def replay(name: str, run: RunInfo) -> str | None:
    """Passes on all attempts of ``run`` as one curve: for a run that was tracked in part."""
    tracker = build_tracker(name, run)
    for row in merged_rows(run.path):
        _pass_on(row, tracker)
    return tracker.finish(read_state(run.path).state)


def build_tracker(name: str, run: RunInfo) -> Tracker:
    """The tracker ``name`` with the settings that ``run`` has for it."""
    module = importlib.import_module(f"gptopt.tracking.{name.replace('-', '_')}")
    return module.build(run, **run.config["logging"]["trackers"][name])


def rows(path: Path, ended: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Rows of the metrics file ``path`` as they appear.

    Ends after the "stop" row, or when ``ended`` says that no more are written and all
    have been read. A torn last line is left out.
    """
    rest = b""
    with open(path, "rb") as file:
        while True:
            last = ended()  # asked first: what was written before the end is still read
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                row = decode(line)
                yield row
                if row["event"] == "stop":
                    return
            if last:
                return
            time.sleep(POLL_S)


def merged_rows(run: Path) -> list[dict[str, Any]]:
    """Rows of all attempts; what a later attempt did again from its start step is dropped."""
    kept: list[dict[str, Any]] = []
    limit = float("inf")
    for _, path in reversed(layout.metrics_files(run)):
        attempt = list(rows(path, ended=lambda: True))
        kept[:0] = [row for row in attempt if row.get("step", 0) <= limit]
        limit = min([limit, *(row["start_step"] for row in attempt[:1])])
    return kept


def _pass_on(row: dict[str, Any], tracker: Tracker) -> None:
    if row["event"] in ("train", "eval"):
        tracker.log({key: value for key, value in row.items() if key != "event"})
    elif row["event"] == "diagnostics":
        step = row["step"]
        values = {f"diagnostics/{k}": v for k, v in row.items() if k not in ("event", "step")}
        tracker.log({"step": step, **values})


def _end_after(parent: int, seconds: float) -> None:
    """Ends this process at most ``seconds`` after its parent, wherever the tracker hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(seconds)
    kill_tree(os.getpid())


def main() -> str | None:
    """Entry of the process; the arguments are those on top of this file."""
    os.umask(0o027)
    name, directory, *rest = sys.argv[1:]
    run = RunInfo.read(Path(directory))
    if not rest:
        return replay(name, run)
    os.nice(10)  # training has the first right to this core
    # Schedulers send their signals to all processes of a job; those tell training to stop.
    signal.pthread_sigmask(
        signal.SIG_BLOCK,
        {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2},
    )
    attempt, parent = map(int, rest)
    return follow(name, run, attempt, parent)


if __name__ == "__main__":
    sys.exit(main())
