"""Ending a process together with everything it has started."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Children of process ``pid``, their children and so on; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # "pid (name) state parent ...": the name may hold spaces and parentheses.
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found[1:]


def kill_tree(pid: int) -> None:
    """Kills ``pid`` and all its descendants, stopped ones and other sessions included.

    Killing the process group would not do: wandb's service leads a session of its own.
    """
    for process in [*descendants(pid), pid]:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
