"""One run directory -> its row in the table of runs, and its rows of metrics."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gptopt import layout
from gptopt.files import read_json
from gptopt.results.columns import SEEDS, TRIAL, WORKLOAD, below
from gptopt.results.events import Rows, merge, number, read_rows
from gptopt.state import read_state

Problems = Counter[tuple[str, str]]
"""How often something was left out, by path and reason."""
Row = dict[str, str | int | float | bool | None]

BULK = ("run.data", "run.parameters.table")
"""Provenance of a row per file or tensor: too long for a table of runs."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Read:
    """What one directory held; ``row`` is None for what is no run of ours."""

    row: Row | None
    rows: Rows
    problems: Problems


def read_run(run: Path, *, once: bool = False) -> Read:
    """Reads one run directory; no content of it raises.

    Args:
        once: What is read is kept elsewhere: the system need not keep the files in memory.
    """
    problems: Problems = Counter()
    asked = _read_config(run / layout.RESOLVED, problems)
    if not isinstance(asked.get("derived.run_id"), str):
        problems[str(run / layout.RESOLVED), "holds no derived.run_id"] += 1
        return Read(None, read_rows(b"", 0), problems)
    files = layout.metrics_files(run)
    attempts = [read_metrics(file, number, problems, once=once) for number, file in files]
    rows, superseded = merge(attempts)
    for place, count in superseded.items():
        problems[str(files[place][1]), "repeated by a later attempt"] += count
    starts = [start for attempt in attempts for start in attempt.starts]
    row = _summary(run, asked, rows) | {"started": starts[0] if starts else None}
    return Read(row, rows, problems)


def read_metrics(file: Path, attempt: int, problems: Problems, *, once: bool = False) -> Rows:
    """The complete rows of one attempt's metrics file, in its order.

    A row is complete when its newline is there.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read()
            if once and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        problems[str(file), f"cannot be read: {error.strerror}"] += 1
        data = b""
    complete = data.rfind(b"\n") + 1
    rows = read_rows(data[:complete], attempt)
    if rows.lost:
        problems[str(file), "line that is no row of metrics"] += rows.lost
    if complete < len(data):
        problems[str(file), "last line cut off"] += 1
    return rows


def _summary(run: Path, asked: Row, rows: Rows) -> Row:
    """The row of a run: standard columns, then provenance, then every leaf of its config."""
    provenance = read_json(run / layout.PROVENANCE)
    kept = dict(_leaves(provenance, "run")) if isinstance(provenance, dict) else {}
    made = {key: value for key, value in kept.items() if not below(key, BULK)}
    state = read_state(run)
    best_loss, best_step = _best(rows)
    weights = number(made.get("run.parameters.non_embedding"))
    one_pass = None if weights is None else 6 * weights  # of runs that do not tell it themselves
    standard: Row = {
        "run_id": asked["derived.run_id"],
        "path": str(run),
        "model": str(asked.get("model.name", "unknown")),
        "dataset": str(asked.get("data.name", "unknown")),
        "optimizer": str(asked.get("optimizer.optimizer_params.name", "unknown")),
        "run_name": _text(asked.get("paths.run_name")),
        "sweep": _text(asked.get("paths.sweep")),
        "state": state.state,
        "reason": state.reason,
        "step": max(state.step, int(rows.step[-1]) if len(rows) else 0),
        "max_steps": number(asked.get("derived.max_steps", state.max_steps)),
        "tokens": rows.last("tokens"),
        "total_tokens": number(asked.get("derived.total_tokens")),
        "attempts": state.attempt,
        "seed": number(asked.get(SEEDS[0])),
        "lr": number(asked.get("optimizer.optimizer_params.lr")),
        "final_train_loss": rows.last("train_loss"),
        "final_val_loss": rows.last("val_loss"),
        "best_val_loss": best_loss,
        "best_val_step": best_step,
        "seconds": rows.last("seconds"),
        "tokens_per_second": _median(rows, "tokens_per_second"),
        "parameters": number(made.get("run.parameters.total")),
        "flops_per_token": number(made.get("run.flops_per_token", one_pass)),
        "overrides": _overrides(run),
        "workload": _digest(asked, WORKLOAD),
        "trial": _digest(asked, TRIAL),
    }
    return made | asked | standard


def _best(rows: Rows) -> tuple[float | None, int | None]:
    """The lowest finite validation loss and the first step that had it."""
    losses = rows.values.get("val_loss", np.full(len(rows), np.nan))
    finite = np.where(np.isfinite(losses), losses, np.inf)
    place = int(finite.argmin()) if len(finite) else 0
    if not len(finite) or not math.isfinite(finite[place]):
        return None, None
    return float(finite[place]), int(rows.step[place])


def _median(rows: Rows, name: str) -> float | None:
    values = rows.values.get(name, np.zeros(0))
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_config(file: Path, problems: Problems) -> Row:
    """The leaves of a resolved config by dotted key; none when it cannot be read.

    The runs of a sweep share most blocks below a top-level key, so each is read once.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return _by_blocks(text) or _leaves_of(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problems[str(file), f"cannot be read: {type(error).__name__}"] += 1
        return {}


def _by_blocks(text: str) -> Row:
    """The leaves of a plain mapping, block by block; empty when that may differ from the whole."""
    head, *blocks = re.split(r"(?m)^(?=[A-Za-z_])", text)
    names = [block.partition(":")[0] for block in blocks]
    if head or len({*names}) < len(names) or re.search(r"(?m)^(---|\.\.\.)", text):
        return {}
    try:
        return {key: value for block in blocks for key, value in _leaves_of(block).items()}
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}  # a block may end in the middle of what YAML takes for one value


@functools.lru_cache(maxsize=4096)
def _leaves_of(text: str) -> Row:
    """The leaves of a YAML document; do not write to it. Of what is no mapping, none."""
    document = yaml.load(text, Loader=_YAML_LOADER)
    return dict(_leaves(document)) if isinstance(document, dict) else {}


def _overrides(run: Path) -> str | None:
    """What was typed behind ``python run_hydra.py`` for this run, quoted for a shell."""
    try:
        typed = yaml.load((run / layout.OVERRIDES).read_bytes(), Loader=_YAML_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return shlex.join(map(str, typed)) if isinstance(typed, list) else None


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a list is one leaf, written as JSON."""
    for name, value in node.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from _leaves(value, key)
        elif isinstance(value, list):
            yield key, json.dumps(value, default=str)
        elif value is None or isinstance(value, (str, int, float)):
            yield key, value
        else:
            yield key, str(value)


def _digest(asked: Row, nodes: tuple[str, ...]) -> str:
    """Equal for runs that agree below ``nodes``, seeds apart; a null is what a run does not have.

    So a key that came later, and is null where it is not used, parts no runs.
    """
    kept = {
        key: value
        for key, value in asked.items()
        if value is not None and key not in SEEDS and below(key, nodes)
    }
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
