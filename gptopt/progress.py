"""What a person sees of a run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_INTERVAL_S = 10.0

log = logging.getLogger(__name__)


class RunProgress:
    """Shows rows of metrics as they come.

    Args:
        kind: bar, lines, none, or auto: a bar exactly when stderr is a terminal.
        start_step: Steps done before this attempt.
        max_steps: Steps of the run.
    """

    def __init__(self, kind: str, start_step: int, max_steps: int) -> None:
        self.kind = kind
        if kind == "auto":
            self.kind = "bar" if sys.stderr.isatty() else "lines"
        self.start_step, self.max_steps = start_step, max_steps
        self._began = self._line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.fields[losses]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=self.kind != "bar",
        )
        self._task = self._bar.add_task("", total=max_steps, completed=start_step, losses="")
        self._last: dict[str, Any] = {}

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, row: Mapping[str, Any]) -> None:
        """Takes a train or eval row."""
        self._last |= row
        words = {"train_loss": "train", "val_loss": "val"}
        shown = row if self.kind == "lines" else self._last  # a line says what is true at its step
        losses = "  ".join(
            f"{word} {shown[key]:.4f}" for key, word in words.items() if shown.get(key)
        )
        self._bar.update(self._task, completed=row["step"], losses=losses)
        now = time.monotonic()
        is_due = row["event"] == "eval" or now - self._line > LINE_INTERVAL_S
        if self.kind == "lines" and is_due:
            self._line = now
            speed = self._last.get("tokens_per_second") or 0.0
            log.info(
                "step %d/%d  %s  %.0f tokens/s  ETA %s",
                row["step"],
                self.max_steps,
                losses,
                speed,
                self._eta(row["step"], now),
            )

    def _eta(self, step: int, now: float) -> str:
        done = step - self.start_step
        if not done:
            return "?"
        left = round((now - self._began) / done * (self.max_steps - step))
        return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
