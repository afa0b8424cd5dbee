"""A window of steps recorded by torch's profiler."""

from __future__ import annotations

from pathlib import Path

import torch

from gptopt.config.schema import Profile


class StepProfiler:
    """Records steps ``start`` (included) to ``end`` (not) on the ranks asked for.

    Writes ``trace.<rank>.json`` into the run directory; does nothing when ``start`` is null.
    """

    def __init__(self, settings: Profile, run: Path, rank: int) -> None:
        self.window = (settings.start, settings.end) if rank in settings.ranks else (None, None)
        self.file = run / f"trace.{rank}.json"
        self._profiler: torch.profiler.profile | None = None

    def __enter__(self) -> StepProfiler:
        self.step(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, done: int) -> None:
        """Called when ``done`` steps are complete."""
        start, end = self.window
        if start is not None and done == start:
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        elif done == end:
            self._stop()

    def _stop(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self.file))
            self._profiler = None
