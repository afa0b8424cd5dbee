"""Text logs of modded-nanogpt, its optimization track included.

    step:125/3250 val_loss:4.5123 train_time:19250ms step_avg:154.00ms

among the source code and the output of nvidia-smi. Some versions print ``train_loss`` too, and
seconds instead of milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptopt.results.importers.log import Log

PATTERNS = ("*.txt", "*.log")
LINE = re.compile(
    r"(?m)^step:(?P<step>\d+)/(?P<steps>\d+)\s.*?"
    r"\b(?P<kind>val|train)_loss:(?P<loss>[-+.\w]+)"
    r"(?:.*?\btrain_time:(?P<time>[\d.]+)(?P<unit>ms|s)\b)?"
)


def read(file: Path) -> Iterator[Log]:
    """The run of one file.

    Raises:
        ValueError: It has no line of a loss.
    """
    found = list(LINE.finditer(file.read_text(encoding="utf-8", errors="replace")))
    if not found:
        raise ValueError("it has no line 'step:1/100 val_loss:…' or 'train_loss:…'")
    rows: list[dict[str, Any]] = []
    for line in found:
        event = {"event": "eval" if line["kind"] == "val" else "train", "step": int(line["step"])}
        scale = 1e-3 if line["unit"] == "ms" else 1.0
        time = {"seconds": scale * float(line["time"])} if line["time"] else {}
        rows.append(event | time | {f"{line['kind']}_loss": float(line["loss"])})
    yield Log(file.stem, rows, max_steps=int(found[-1]["steps"]))
