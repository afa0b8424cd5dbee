"""Writes an imported run as a run directory."""

from __future__ import annotations

import copy
import csv
import hashlib
import importlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gptopt import files, layout
from gptopt.results.importers.log import Log
from gptopt.results.load import Runs, load

FORMATS = {
    "gpt-opt": "gptopt.results.importers.gptopt",
    "modded-nanogpt": "gptopt.results.importers.modded",
    "nanogpt": "gptopt.results.importers.nanogpt",
    "wandb": "gptopt.results.importers.wandb",
    "tensorboard": "gptopt.results.importers.tensorboard",
}
"""The module of each format."""
DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    OSError,
    csv.Error,
    struct.error,
)
"""What reading a file that is no log, or a damaged one, may raise."""
NAMED = ("model.name", "data.name", "optimizer.optimizer_params.name")


def import_runs(kind: str, path: Path, out: Path, *, settings: Mapping[str, Any]) -> Runs:
    """Writes the runs of a log, or of all logs below a directory, below ``out``.

    Args:
        kind: One of ``FORMATS``.
        path: A file or a directory.
        out: As ``paths.output_dir``. A run that was imported before is left as it is.
        settings: Values by the dotted keys of the configuration, for what the logs do not
            tell: ``{"optimizer.optimizer_params.name": "muon", …}``. They win over the logs.

    Returns:
        The imported runs.

    Raises:
        ValueError: An unknown format, no log, a file that is none, a setting that lies above
            another one (nothing is written then), or another run in the place of one.
    """
    if kind not in FORMATS:
        raise ValueError(f"{kind!r} is no format that can be imported: {', '.join(FORMATS)}.")
    reader = importlib.import_module(FORMATS[kind])
    logs = []
    for file in _files(path, reader.PATTERNS):
        try:
            logs += [(file, log) for log in reader.read(file)]
        except DAMAGE as error:
            raise ValueError(f"{file}: no log of {kind}: {error}") from error
    if not logs:
        raise ValueError(f"{path}: no file {' or '.join(reader.PATTERNS)}.")
    return load([_write(kind, file, log, out, settings) for file, log in logs], cache=False)


def _files(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})


def _write(kind: str, file: Path, log: Log, out: Path, settings: Mapping[str, Any]) -> Path:
    known = dict.fromkeys(NAMED, "unknown") | log.settings | dict(settings)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    identity = json.dumps([kind, content, log.name, known], sort_keys=True, default=str)
    run_id = hashlib.sha256(identity.encode()).hexdigest()
    name = f"{log.name}-{run_id[:8]}"
    model, data, optimizer = (str(known[key]) for key in NAMED)
    run = layout.run_dir(out, model, data, optimizer, name)
    if layout.is_run(run):
        return run
    if run.exists():
        raise ValueError(f"{run}: exists and is no run; move it away.")
    tokens = max((row["tokens"] for row in log.rows if "tokens" in row), default=None)
    derived = {"run_id": run_id, "max_steps": log.max_steps, "total_tokens": tokens}
    config = _nested(known | {"paths.run_name": name}) | {"derived": derived}
    (run / layout.ATTEMPTS).mkdir(parents=True)
    files.write_json(layout.attempt_file(run, 1), {})
    rows = [{"event": "start", "attempt": 1, "start_step": 0}, *log.rows]
    files.write(layout.metrics_file(run, 1), "".join(map(_line, rows)))
    source = {"format": kind, "file": str(file.resolve()), "sha256": content}
    files.write_json(run / layout.PROVENANCE, {"run_id": run_id, "imported_from": source})
    _end(run, log)
    # Last: a directory without it is no run.
    files.write(run / layout.RESOLVED, yaml.safe_dump(config, sort_keys=False))
    return run


def _end(run: Path, log: Log) -> None:
    """The terminal marker, unless the log stops before the run's last step."""
    step = max(row["step"] for row in log.rows)
    losses = [v for row in log.rows for k, v in row.items() if k in ("train_loss", "val_loss")]
    if not math.isfinite(losses[-1]):
        state, reason = "diverged", "its last loss is not finite"
    elif log.max_steps is None or step >= log.max_steps:
        state, reason = "completed", "imported"
    else:
        reason = f"its log ends at step {step} of {log.max_steps}"
        status = {"state": "interrupted", "reason": reason, "step": step, "attempt": 1}
        files.write_json(run / layout.STATUS, status)
        return
    marker = {"state": state, "reason": reason, "step": step, "attempt": 1}
    files.write_json(run / layout.TERMINAL[state], marker)


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in leaves.items():
        if inner := next((other for other in leaves if other.startswith(f"{key}.")), None):
            raise ValueError(f"{key}={value}: it takes no value itself; write such as {inner}=….")
        *nodes, leaf = key.split(".")
        place = root
        for node in nodes:
            place = place.setdefault(node, {})
        place[leaf] = copy.deepcopy(value)
    return root


def _line(row: Mapping[str, Any]) -> str:
    odd = {k: str(v) for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    strict = {**row, **dict.fromkeys(odd), "nonfinite": odd} if odd else row
    return json.dumps(strict, allow_nan=False) + "\n"
