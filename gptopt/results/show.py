"""One run on one page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.files import read_json
from gptopt.results.runs import Runs, records

PLACES = ("paths.", "cluster.", "hydra.")
"""Settings that say where a run lies and starts, not what it is."""


def show(found: Runs) -> list[str]:
    """State, result, settings asked for, provenance, fingerprints and parameters of one run.

    Args:
        found: One run.
    """
    (row,) = records(found.runs)
    return [
        row["path"],
        f"{row['model']} on {row['dataset']}, {row['optimizer']}",
        *_progress(row),
        *_asked(row),
        "settings derived:",
        *(f"  {key.removeprefix('derived.')}: {row[key]}" for key in _below(row, "derived.")),
        "provenance:",
        *(f"  {key.removeprefix('run.')}: {row[key]}" for key in _provenance(row)),
        *_parameters(Path(row["path"])),
        *(f"! {p.path}: {p.problem} ({p.count})" for p in found.problems.itertuples()),
    ]


def _progress(row: dict[str, Any]) -> Iterator[str]:
    reason = f": {row['reason']}" if row["reason"] else ""
    yield (
        f"{row['state']}{reason}, step {row['step']:g} of {row['max_steps']:g},"
        f" {row['attempts']} attempt(s)"
    )
    if not math.isnan(row["final_val_loss"]):
        yield (
            f"validation loss: last {row['final_val_loss']:.4f}, best {row['best_val_loss']:.4f}"
            f" at step {row['best_val_step']:g}; training loss: last {row['final_train_loss']:.4f}"
        )
    if not math.isnan(row["seconds"]):
        yield f"{row['seconds']:.1f} s of training, {row['tokens_per_second']:,.0f} tokens/s"


def _asked(row: dict[str, Any]) -> Iterator[str]:
    """What was said on top of the defaults."""
    if not isinstance(row["overrides"], str):
        return
    typed = [text for text in shlex.split(row["overrides"]) if not text.startswith(PLACES)]
    yield "settings asked for:" if typed else "settings asked for: none, all are the defaults"
    yield from (f"  {text}" for text in typed)


def _below(row: dict[str, Any], prefix: str) -> list[str]:
    return [key for key in row if key.startswith(prefix) and _is_known(row[key])]


def _provenance(row: dict[str, Any]) -> list[str]:
    return [key for key in _below(row, "run.") if not key.startswith(("run.run_", "run.instance"))]


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _parameters(run: Path) -> Iterator[str]:
    """Which rule drives what, from the table of parameters."""
    content = read_json(run / layout.PROVENANCE)
    try:
        table = content["parameters"]["table"]  # type: ignore[index]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for tensor in table:
            key = tuple(tensor[name] for name in ("rule", "role", "lr", "weight_decay"))
            groups.setdefault(key, []).append(tensor["numel"])
    except (TypeError, KeyError):
        return
    yield "parameters:"
    for (rule, role, lr, decay), sizes in groups.items():
        yield (
            f"  {rule} drives {sum(sizes):,} {role} parameters in {len(sizes)} tensors,"
            f" lr {lr:g}, weight_decay {decay:g}"
        )
