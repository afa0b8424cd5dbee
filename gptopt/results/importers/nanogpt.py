"""What nanoGPT's train.py prints.

    step 250: train loss 2.4512, val loss 2.4699
    iter 250: loss 2.4466, time 1234.56ms, mfu 12.34%

``step 250`` is an evaluation after 250 updates, its training loss one over many batches.
``iter 250`` is the 251st update; its time is that of one update.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptopt.results.importers.log import Log

PATTERNS = ("*.txt", "*.log", "*.out")
LINE = re.compile(
    r"(?m)^(?:step (?P<step>\d+): train loss [-+.\w]+, val loss (?P<val>[-+.\w]+)"
    r"|iter (?P<iter>\d+): loss (?P<train>[-+.\w]+), time (?P<ms>[\d.]+)ms)"
)
SETTING = re.compile(r"(?m)^(max_iters|learning_rate|seed) = ([-+.\w]+)")
"""What configurator.py echoes of a config file, or an override of it."""
KEYS = {"learning_rate": "optimizer.optimizer_params.lr", "seed": "training.training_params.seed"}


def read(file: Path) -> Iterator[Log]:
    """The run of one file.

    Raises:
        ValueError: It has no line of a loss.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    rows: list[dict[str, Any]] = []
    for line in LINE.finditer(text):
        if line["step"]:
            row = {"event": "eval", "step": int(line["step"]), "val_loss": float(line["val"])}
        else:
            measured = {"train_loss": float(line["train"]), "step_ms": float(line["ms"])}
            row = {"event": "train", "step": int(line["iter"]) + 1} | measured
        rows.append(row)
    if not rows:
        raise ValueError("it has no line 'iter 0: loss …' or 'step 0: train loss …, val loss …'")
    told = {name: float(value) for name, value in SETTING.findall(text)}
    settings = {KEYS[name]: value for name, value in told.items() if name in KEYS}
    steps = int(told["max_iters"]) if "max_iters" in told else None
    yield Log(file.stem, rows, settings, steps)
