"""What an importer hands over: one run of another program, in this project's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = {
    "train_loss": ("train_loss", "train/loss", "loss", "loss/train"),
    "val_loss": ("val_loss", "val/loss", "eval/loss", "eval_loss", "validation_loss", "loss/val"),
    "lr": ("lr", "train/lr", "learning_rate", "train/learning_rate", "train/lr_0"),
    "grad_norm": ("grad_norm", "train/grad_norm"),
    "tokens": ("tokens", "train/tokens"),
    "seconds": ("seconds", "_runtime"),
    "step": ("step", "train/step", "global_step", "trainer/global_step", "iter", "_step"),
}
"""Our name of a number and what others call it, the surest first."""
OURS = {theirs: ours for ours, known in NAMES.items() for theirs in known}


@dataclass
class Log:
    """One run.

    Attributes:
        name: For people.
        rows: As in a metrics file, without the marks of start and stop, in order.
        settings: Values by the dotted keys of the configuration, as far as the log tells.
        max_steps: Steps of the whole run; None when the log does not tell.
    """

    name: str
    rows: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None


def rows_at(step: int, numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """The rows of what was logged at one step: a validation apart from the training.

    Args:
        numbers: By names of ``NAMES``; others stay out.
    """
    # of two names of one number the last one stays, which is the surest
    ours = {OURS[name]: numbers[name] for name in reversed(OURS) if name in numbers}
    shared: dict[str, Any] = {"step": step}
    shared |= {name: ours[name] for name in ("tokens", "seconds") if name in ours}
    train = {name: ours[name] for name in ours if name not in ("val_loss", *shared)}
    rows: list[dict[str, Any]] = []
    if train:
        rows.append({"event": "train"} | shared | train)
    if "val_loss" in ours:
        rows.append({"event": "eval"} | shared | {"val_loss": ours["val_loss"]})
    return rows


def to_float(text: Any) -> float:
    """A number, or the text of one; NaN and infinities in any of their spellings.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        raise ValueError(f"{text!r} is no number")
    value = float(text)
    return value if not math.isnan(value) else math.nan
