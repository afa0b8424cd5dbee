"""Run directories by the parent: thousands that do not exist yet cost one look."""

from __future__ import annotations

import os
from pathlib import Path

from gptopt.state import State, read_state

NEW = State("new")


class RunDirectories:
    """What is there now; a directory of runs is listed once, however many runs it has."""

    def __init__(self) -> None:
        self._listed: dict[str, set[str]] = {}

    def state(self, run: Path) -> State:
        """As ``read_state``."""
        parent, name = os.path.split(run)
        return read_state(run) if name in self.names(parent) else NEW

    def names(self, parent: str) -> set[str]:
        """The entries of a directory; none where it does not exist."""
        if parent not in self._listed:
            try:
                self._listed[parent] = set(os.listdir(parent))
            except OSError:
                self._listed[parent] = set()
        return self._listed[parent]
