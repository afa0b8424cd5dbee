"""Run directories -> one row per run and one row per logged event.

Everything is read from the files of a run: never from SLURM, a tracker or the name of a
directory. Whatever cannot be read is left out and counted in ``Runs.problems``; no content
raises. docs/results.md describes the columns; they are an interface.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from gptopt import layout
from gptopt.config.identity import IDENTITY_NODES
from gptopt.files import read_json
from gptopt.results.columns import METRIC_COLUMNS, RUN_NUMBERS, RUN_TEXTS
from gptopt.state import read_state

if TYPE_CHECKING:
    import pandas as pd

Paths = str | Path | Iterable[str | Path]
Problems = Counter[tuple[str, str]]
"""How often something was left out, by path and reason."""

PARAMS = "training.training_params"
SEEDS = (f"{PARAMS}.seed", f"{PARAMS}.data_seed")
TRIAL = (*IDENTITY_NODES, "checkpoint.init_from")
"""Runs that agree below these keys, seeds apart, are one trial."""
WORKLOAD = ("model", "data", "derived.context_length", "derived.total_tokens")
"""Runs that agree below these keys may be compared with each other."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Runs:
    """What ``load`` found.

    Attributes:
        runs: A row per run; ``run_id`` is unique.
        metrics: A row per logged measurement, in the order of training; ``run_id`` joins.
        problems: What was left out: path, problem, count.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    problems: pd.DataFrame

    def of(self, run_id: str) -> pd.DataFrame:
        """The metrics of one run."""
        return self.metrics[self.metrics["run_id"] == run_id]

    def workloads(self) -> dict[str, Runs]:
        """The runs that may be compared with each other, by a title.

        One workload is one model on one corpus with one context length for one number of
        training tokens. Where these share their names, the title says what differs.
        """
        kinds = self.runs.drop_duplicates("workload")
        titles = [
            f"{row['model']} on {row['dataset']}, {row['total_tokens']:,.0f} tokens"
            for _, row in kinds.iterrows()
        ]
        parts = {}
        for title, (_, row) in zip(titles, kinds.iterrows(), strict=True):
            alike = kinds[[other == title for other in titles]]
            keys = [key for key in map(str, alike) if _below(key, WORKLOAD) and _varies(alike[key])]
            marks = "".join(f", {key.rsplit('.', 1)[-1]}={row[key]}" for key in keys)
            runs = self.runs[self.runs["workload"] == row["workload"]]
            metrics = self.metrics[self.metrics["run_id"].isin(runs["run_id"])]
            parts[title + marks] = Runs(runs, metrics, self.problems)
        return {title: parts[title] for title in sorted(parts)}


def load(paths: Paths) -> Runs:
    """Reads every run directory at or below ``paths``.

    Args:
        paths: One or several directories. Links to run directories (``multirun/``) count,
            other links are not followed. A run found twice is read once.
    """
    import pandas as pd

    problems: Problems = Counter()
    found: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    roots = [paths] if isinstance(paths, (str, Path)) else paths
    for run in dict.fromkeys(run for root in roots for run in _find(Path(root), problems)):
        read = _read_run(run, problems)
        if read is None:
            continue
        run_id = read[0]["run_id"]
        if run_id in found:
            # A copy is no second seed. Of two, the one that was started last replaced the other.
            older, read = sorted((read, found[run_id]), key=_age)
            problems[older[0]["path"], f"same run as {read[0]['path']}"] += 1
        found[run_id] = read

    runs = pd.DataFrame([row for row, _ in found.values()])
    runs = runs.reindex(columns=list(RUN_TEXTS | RUN_NUMBERS | dict.fromkeys(runs)))
    runs[list(RUN_NUMBERS)] = runs[list(RUN_NUMBERS)].apply(pd.to_numeric)
    metrics = pd.DataFrame([row for _, rows in found.values() for row in rows])
    metrics = metrics.reindex(columns=list(METRIC_COLUMNS | dict.fromkeys(metrics)))
    counted = [(path, problem, count) for (path, problem), count in problems.items()]
    return Runs(runs, metrics, pd.DataFrame(counted, columns=["path", "problem", "count"]))


def swept(runs: pd.DataFrame) -> list[str]:
    """Columns of the configuration, seeds apart, that one optimizer was run with several of."""
    groups = [group for _, group in runs.groupby(["workload", "optimizer"])]
    return [
        column
        for column in map(str, runs)
        if _below(column, TRIAL)
        and column not in SEEDS
        and any(_varies(group[column]) for group in groups)
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries, by column."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def _varies(column: pd.Series) -> bool:
    return column.nunique(dropna=False) > 1


def _age(read: tuple[dict[str, Any], Any]) -> tuple[float, int]:
    started = read[0]["started"]
    return (-math.inf if started is None else started, read[0]["step"])


def _below(key: str, nodes: tuple[str, ...]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _find(root: Path, problems: Problems) -> Iterator[Path]:
    """Run directories at or below ``root``, resolved, sorted within each directory."""

    def unreadable(error: OSError) -> None:
        problems[str(error.filename), f"cannot be read: {error.strerror}"] += 1

    for directory, children, _ in os.walk(root, onerror=unreadable):
        if os.path.isfile(os.path.join(directory, layout.RESOLVED)):
            children.clear()
            yield Path(directory).resolve()
        children[:] = sorted(child for child in children if not child.startswith("."))
        for child in (Path(directory, child) for child in children):
            if child.is_symlink() and os.path.isfile(child / layout.RESOLVED):
                yield child.resolve()


def _read_run(run: Path, problems: Problems) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """(row of the run, its rows of metrics), or None for what is no run of ours."""
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

    A row is complete when its newline is there. Null becomes NaN, or the value that the
    row's ``nonfinite`` names.
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
        nonfinite = row.get("nonfinite", {})
        numbers = {
            key: float(nonfinite.get(key, "nan") if value is None else value)
            for key, value in row.items()
            if key not in ("event", "step", "nonfinite")
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
    made = dict(_leaves(provenance, "run")) if isinstance(provenance, dict) else {}
    made.pop("run.parameters.table", None)
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
        "workload": _digest({k: v for k, v in asked.items() if _below(k, WORKLOAD)}),
        "trial": _digest({k: v for k, v in asked.items() if _below(k, TRIAL) and k not in SEEDS}),
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
