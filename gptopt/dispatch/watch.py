"""What a person sees while this machine works through a sweep.

On a terminal: a bar for the sweep and one for every run at work. Elsewhere: a line for every
run that ends, and one now and then in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gptopt import layout
from gptopt.files import read_json

LINE_INTERVAL_S = 15.0
LOOK_INTERVAL_S = 1.0
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Glimpse:
    """How far a run has come."""

    step: int = 0
    max_steps: int | None = None
    train_loss: float | None = None

    @property
    def share(self) -> float:
        """Part of the run that is done."""
        return self.step / self.max_steps if self.max_steps else 0.0


def glimpse(run: Path) -> Glimpse:
    """A look at a run from outside: its status and the end of its metrics."""
    status = read_json(run / layout.STATUS) or {}
    loss = None
    if found := layout.metrics_files(run):
        with open(found[-1][1], "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                row = json.loads(line)
            except ValueError:  # cut off, by us or by a writer at work
                continue
            if row.get("event") == "train":
                return Glimpse(row["step"], status.get("max_steps"), row["train_loss"])
    return Glimpse(status.get("step", 0), status.get("max_steps"), loss)


def short_name(run: Path) -> str:
    """``<optimizer>/<run_name>``."""
    return "/".join(run.parts[-2:])


def duration(seconds: float) -> str:
    """Such as 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Watch:
    """Shows a sweep of ``total`` runs while it is entered."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended = 0
        self._console = Console()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._sweep = self._progress.add_task(f"{total} runs", total=total, words="")
        self._bars: dict[Path, TaskID] = {}
        self._shares: dict[Path, tuple[float, float]] = {}  # run: done when first seen, done now
        self._began = self._looked = self._line = time.monotonic()

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the bars where there are any."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def end(self, run: Path, words: str) -> None:
        """A run has ended."""
        self.ended += 1
        first, _ = self._shares.get(run, (0.0, 0.0))
        self._shares[run] = (first, 1.0)
        if (bar := self._bars.pop(run, None)) is not None:
            self._progress.remove_task(bar)
        self._progress.update(self._sweep, completed=self.ended)
        self.say(f"[{self.ended}/{self.total}] {short_name(run)} {words}")

    def look(self, running: Sequence[Path]) -> None:
        """Shows how far the runs at work are; does so once in a while, whenever it is called."""
        now = time.monotonic()
        if now - self._looked < LOOK_INTERVAL_S:
            return
        self._looked = now
        seen = {run: glimpse(run) for run in running}
        for run, known in seen.items():
            first, _ = self._shares.get(run, (known.share, 0.0))
            self._shares[run] = (first, known.share)
        left = self._left(now)
        words = f"{self.ended} ended, {len(running)} running, ETA {left}"
        if self._console.is_terminal:
            self._show_bars(seen)
            self._progress.update(self._sweep, words=words)
        elif now - self._line > LINE_INTERVAL_S:
            self._line = now
            details = "; ".join(f"{short_name(run)} {_words(known)}" for run, known in seen.items())
            self.say(f"[{self.ended}/{self.total}] {words}: {details}")

    def _show_bars(self, seen: dict[Path, Glimpse]) -> None:
        for run, known in seen.items():
            if run not in self._bars:
                self._bars[run] = self._progress.add_task(short_name(run), words="")
            self._progress.update(
                self._bars[run], total=known.max_steps, completed=known.step, words=_words(known)
            )

    def _left(self, now: float) -> str:
        """Time to the end, as long as runs take as long as those seen so far."""
        done = sum(share - first for first, share in self._shares.values())
        if done <= 0:
            return "?"
        to_do = self.total - sum(share for _, share in self._shares.values())
        return duration((now - self._began) / done * to_do)


def _words(known: Glimpse) -> str:
    if known.max_steps is None:
        return "starting"
    loss = "" if known.train_loss is None else f" train {known.train_loss:.3f}"
    return f"step {known.step}/{known.max_steps}{loss}"
