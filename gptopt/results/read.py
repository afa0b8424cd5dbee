"""One run directory -> its row in the table of runs, and its rows of metrics."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gptopt import layout
from gptopt.config.identity import IDENTITY_NODES
from gptopt.files import read_json
from gptopt.state import read_state

Problems = Counter[tuple[str, str]]
"""How often something was left out, by path and reason."""

PARAMS = "training.training_params"
SEEDS = (f"{PARAMS}.seed", f"{PARAMS}.data_seed")
TRIAL = (*IDENTITY_NODES, "checkpoint.init_from")
"""Runs that agree below these keys, seeds apart, are one trial."""
WORKLOAD = ("model", "data", "derived.context_length", "derived.total_tokens")
"""Runs that agree below these keys may be compared with each other."""

BULK = ("run.data", "run.parameters.table")
"""Provenance of a row per file or tensor: too long for a table of runs."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_run(run: Path, problems: Problems) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Reads one run directory.

    Returns:
        The row of the run and its rows of metrics, or None for what is no run of ours.
    """
    config = _read_yaml(run / layout.RESOLVED, problems)
    asked = dict(_leaves(config)) if isinstance(config, dict) else {}
    if not isinstance(asked.get("derived.run_id"), str):
        problems[str(run / layout.RESOLVED), "holds no derived.run_id"] += 1
        return None
    attempts = {number: read_events(file, problems) for number, file in layout.metrics_files(run)}
    rows, superseded = merge_attempts(attempts)
    for number, count in superseded.items():
        problems[str(layout.metrics_file(run, number)), "repeated by a later attempt"] += count
    starts = [e["time"] for events in attempts.values() for e in events if e["event"] == "start"]
    summary = _summary(run, asked, rows) | {"started": starts[0] if starts else None}
    return summary, [{"run_id": summary["run_id"]} | row for row in rows]


def read_events(file: Path, problems: Problems) -> list[dict[str, Any]]:
    """The complete rows of one attempt's metrics file, in its order.

    A row is complete when its newline is there. Null is the value that the row's
    ``nonfinite`` names, or else one that was not measured.
    """
    try:
        *lines, rest = file.read_bytes().split(b"\n")
    except OSError as error:
        problems[str(file), f"cannot be read: {error.strerror}"] += 1
        return []
    events = [event for line in lines if (event := _parse(line))]
    if len(events) < len(lines):
        problems[str(file), "line that is no row of metrics"] += len(lines) - len(events)
    if rest:
        problems[str(file), "last line cut off"] += 1
    return events


def _parse(line: bytes) -> dict[str, Any] | None:
    """One row of metrics as numbers; None for anything else that a line may hold."""
    try:
        row = json.loads(line)
        event, step = row["event"], row["start_step" if row["event"] == "start" else "step"]
        if not isinstance(event, str) or type(step) is not int or not 0 <= step < 2**63:
            return None
        if event in ("start", "stop"):
            return {"event": event, "step": step, "time": _number(row.get("time"))}
        measured = row | row.get("nonfinite", {})
        numbers = {
            key: float(value)
            for key, value in measured.items()
            if key not in ("event", "step", "nonfinite") and value is not None
        }
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        return None
    return {"event": event, "step": step} | numbers


def merge_attempts(
    attempts: Mapping[int, list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], Counter[int]]:
    """The measurements of a run that was interrupted and resumed, as if it never was.

    Of each attempt, rows up to the first step of every later attempt are kept.

    Returns:
        The rows with their ``attempt``, in order, and how many rows of which attempt a
        later one repeated.
    """
    kept: list[dict[str, Any]] = []
    superseded: Counter[int] = Counter()
    horizon = math.inf
    for number in sorted(attempts, reverse=True):
        events = attempts[number]
        measured = [e for e in events if e["event"] not in ("start", "stop")]
        valid = [{"attempt": number} | e for e in measured if e["step"] <= horizon]
        if len(valid) < len(measured):
            superseded[number] = len(measured) - len(valid)
        kept = valid + kept
        if events:
            # An attempt whose first row was lost took over before its first row that is left.
            first = events[0]
            horizon = min(horizon, first["step"] - (first["event"] != "start"))
    return kept, superseded


def _summary(run: Path, asked: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of a run: standard columns, then provenance, then every leaf of its config."""
    provenance = read_json(run / layout.PROVENANCE)
    kept = dict(_leaves(provenance, "run")) if isinstance(provenance, dict) else {}
    made = {key: value for key, value in kept.items() if not below(key, BULK)}
    state = read_state(run)
    best = min(
        (row for row in rows if math.isfinite(row.get("val_loss", math.nan))),
        key=lambda row: row["val_loss"],
        default={},
    )
    speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    finite = [speed for speed in speeds if math.isfinite(speed)]
    standard = {
        "run_id": asked["derived.run_id"],
        "path": str(run),
        "model": str(asked.get("model.name", "unknown")),
        "dataset": str(asked.get("data.name", "unknown")),
        "optimizer": str(asked.get("optimizer.optimizer_params.name", "unknown")),
        "run_name": _text(asked.get("paths.run_name")),
        "sweep": _text(asked.get("paths.sweep")),
        "state": state.state,
        "reason": state.reason,
        "step": max(state.step, rows[-1]["step"] if rows else 0),
        "max_steps": _number(asked.get("derived.max_steps", state.max_steps)),
        "tokens": _last(rows, "tokens"),
        "total_tokens": _number(asked.get("derived.total_tokens")),
        "attempts": state.attempt,
        "seed": _number(asked.get(SEEDS[0])),
        "lr": _number(asked.get("optimizer.optimizer_params.lr")),
        "final_train_loss": _last(rows, "train_loss"),
        "final_val_loss": _last(rows, "val_loss"),
        "best_val_loss": best.get("val_loss"),
        "best_val_step": best.get("step"),
        "seconds": _last(rows, "seconds"),
        "tokens_per_second": statistics.median(finite) if finite else None,
        "parameters": _number(made.get("run.parameters.total")),
        "overrides": _overrides(run),
        "workload": _digest({k: v for k, v in asked.items() if below(k, WORKLOAD)}),
        "trial": _digest({k: v for k, v in asked.items() if below(k, TRIAL) and k not in SEEDS}),
    }
    return made | asked | standard


def _last(rows: list[dict[str, Any]], key: str) -> float | None:
    """The last logged value; infinite when it was not finite, None when there is none."""
    last = next((row[key] for row in reversed(rows) if key in row), None)
    return math.inf if last is not None and not math.isfinite(last) else last


def _number(value: Any) -> int | float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if usable and abs(value) < 2**63 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_yaml(file: Path, problems: Problems) -> Any:
    try:
        return yaml.load(file.read_bytes(), Loader=_YAML_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problems[str(file), f"cannot be read: {type(error).__name__}"] += 1
        return None


def _overrides(run: Path) -> str | None:
    """What was typed behind ``python run_hydra.py`` for this run, quoted for a shell."""
    typed = _read_yaml(run / layout.OVERRIDES, Counter())
    return shlex.join(map(str, typed)) if isinstance(typed, list) else None


def below(key: str, nodes: tuple[str, ...]) -> bool:
    """Whether the dotted ``key`` is one of ``nodes`` or lies below one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a list is one leaf, written as JSON."""
    for name, value in node.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from _leaves(value, key)
        elif isinstance(value, list):
            yield key, json.dumps(value, default=str)
        else:
            yield key, value


def _digest(leaves: dict[str, Any]) -> str:
    text = json.dumps(leaves, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
