"""How far a run has come, by a look from outside: its status and the end of its metrics."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.files import read_json

TAIL_BYTES = 4096


@dataclass(frozen=True)
class Glimpse:
    """How far a run has come; ``seconds`` are those of training, evaluation left out."""

    step: int = 0
    max_steps: int | None = None
    train_loss: float | None = None
    seconds: float | None = None

    @property
    def share(self) -> float:
        """Part of the run that is done."""
        return self.step / self.max_steps if self.max_steps else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to its end, if the rest goes as fast; None while that is not known."""
        if not self.step or self.max_steps is None or self.seconds is None:
            return None
        return self.seconds / self.step * (self.max_steps - self.step)


def glimpse(run: Path) -> Glimpse:
    """A look at the run in this directory; never raises."""
    status = read_json(run / layout.STATUS)
    known = status if isinstance(status, dict) else {}
    row = _last_train_row(run)
    step = row.get("step") or known.get("step") or 0
    return Glimpse(step, known.get("max_steps"), row.get("train_loss"), row.get("seconds"))


def duration(seconds: float) -> str:
    """Such as 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _last_train_row(run: Path) -> dict[str, Any]:
    try:
        file = layout.metrics_files(run)[-1][1]
        with open(file, "rb") as content:
            content.seek(max(0, file.stat().st_size - TAIL_BYTES))
            lines = content.read().splitlines()
    except (OSError, IndexError):  # not there yet, or moved aside
        return {}
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # cut off, by us or by a writer at work
            row = json.loads(line)
            if isinstance(row, dict) and row.get("event") == "train":
                return row
    return {}
