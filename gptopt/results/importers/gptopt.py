"""GPT-opt's log.json: one object of lists, an entry per optimizer step.

``losses``, ``grad_norms``, ``step_times`` (seconds); ``learning_rates`` has one entry per step and
parameter group, the first group being the one that is taken. ``val_losses`` holds a loss per
``val_step`` steps, which the file does not tell, and one at the end: only that one has a
certain step, and it is taken.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptopt.results.importers.log import Log, to_float

PATTERNS = ("*.json",)


def read(file: Path) -> Iterator[Log]:
    """The run of one file.

    Raises:
        ValueError: It is no such log.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    losses = content.get("losses") if isinstance(content, dict) else None
    if not isinstance(losses, list) or not losses:
        raise ValueError("it has no list 'losses'")
    steps = len(losses)
    rates = content.get("learning_rates") or []
    columns = {
        "train_loss": losses,
        "grad_norm": content.get("grad_norms") or [],
        "seconds": list(itertools.accumulate(content.get("step_times") or [])),
        "lr": rates[:: len(rates) // steps] if len(rates) >= steps else [],
    }
    rows: list[dict[str, Any]] = []
    for place in range(steps):
        measured = {n: to_float(c[place]) for n, c in columns.items() if len(c) == steps}
        rows.append({"event": "train", "step": place + 1} | measured)
    if content.get("val_losses"):
        last = {"val_loss": to_float(content["val_losses"][-1])}
        seconds = {k: v for k, v in rows[-1].items() if k == "seconds"}
        rows.append({"event": "eval", "step": steps} | seconds | last)
    peak = {"optimizer.optimizer_params.lr": max(map(to_float, columns["lr"]))} if rates else {}
    yield Log(str(content.get("name") or file.stem), rows, peak, steps)
