"""What a person sees while this machine works through a sweep.

On a terminal: a bar for the sweep and one for every run at work. Elsewhere: a line for every
run that ends, and one now and then in between.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gptopt.sweep.progress import Glimpse, duration, glimpse

LINE_INTERVAL_S = 15.0
LOOK_INTERVAL_S = 1.0


def short_name(run: Path) -> str:
    """``<optimizer>/<run_name>``."""
    return "/".join(run.parts[-2:])


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
        self._looked = 0.0  # the next look shows what this changes
        self._progress.update(self._sweep, completed=self._done, words=f"{self.ended} ended")
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
            self._progress.update(self._sweep, completed=self._done, words=words)
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

    @property
    def _done(self) -> float:
        """Runs that are done, parts of runs counted as such."""
        return sum(share for _, share in self._shares.values())

    def _left(self, now: float) -> str:
        """Time to the end, if the rest goes as fast as what was seen so far."""
        here = self._done - sum(first for first, _ in self._shares.values())
        if here <= 0:
            return "?"
        return duration((now - self._began) / here * (self.total - self._done))


def _words(known: Glimpse) -> str:
    if known.max_steps is None:
        return "starting"
    loss = "" if known.train_loss is None else f" train {known.train_loss:.3f}"
    return f"step {known.step}/{known.max_steps}{loss}"
