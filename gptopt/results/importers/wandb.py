"""History of Weights & Biases, exported.

JSON (a list of rows, or one row a line) as ``run.scan_history()`` gives them, or CSV: either one
run with a column per name, or the table of a chart, which has ``Step`` and a column
``<run> - <name>`` for each run, with ``__MIN`` and ``__MAX`` beside it that are left out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptopt.results.importers.log import NAMES, OURS, Log, rows_at, to_float

PATTERNS = ("*.csv", "*.json", "*.jsonl")


def read(file: Path) -> Iterator[Log]:
    """The run of one file, or all runs of a chart.

    Raises:
        ValueError: It has no steps, or no loss under a name that is known.
    """
    for name, rows in _histories(file).items():
        found = [row for step, numbers in _numbers(rows) for row in rows_at(step, numbers)]
        if not any("train_loss" in row or "val_loss" in row for row in found):
            known = ", ".join((*NAMES["train_loss"], *NAMES["val_loss"]))
            raise ValueError(f"no column is a loss; known are {known}")
        yield Log(name, found)


def _histories(file: Path) -> dict[str, Sequence[Mapping[str, Any]]]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and any(" - " in name for name in rows[0]):
            return _chart(rows)
        return {file.stem: rows}
    if text.lstrip().startswith("["):
        return {file.stem: json.loads(text)}
    return {file.stem: [json.loads(line) for line in text.splitlines() if line.strip()]}


def _chart(rows: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for column in rows[0]:
        run, dash, name = column.rpartition(" - ")
        if dash and not name.endswith(("__MIN", "__MAX")):
            runs.setdefault(run, []).extend({"step": r["Step"], name: r[column]} for r in rows)
    return {run: sorted(found, key=lambda r: to_float(r["step"])) for run, found in runs.items()}


def _numbers(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and numbers of each row, by the names of ``log.NAMES``; others stay out."""
    if not rows or not isinstance(rows[0], dict):
        raise ValueError("it holds no rows")
    names = [name for name in NAMES["step"] if any(name in row for row in rows)]
    if not names:
        raise ValueError(f"no column is a step; known are {', '.join(NAMES['step'])}")
    for row in rows:
        step = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if step is None:
            continue
        numbers = {
            name: to_float(value)
            for name, value in row.items()
            if OURS.get(name, "step") != "step" and value not in (None, "")
        }
        yield int(to_float(step)), numbers
