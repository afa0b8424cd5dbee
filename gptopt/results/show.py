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
from gptopt.results.select import shown

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
    of = f" of {shown(row['max_steps'])}" if _is_known(row["max_steps"]) else ""
    yield f"{row['state']}{reason}, step {row['step']}{of}, {row['attempts']} attempt(s)"
    losses = []
    if _is_known(row["final_val_loss"]):
        losses.append(f"validation loss: last {row['final_val_loss']:.4f}")
    if _is_known(row["best_val_loss"]):
        best = f"best {row['best_val_loss']:.4f} at step {shown(row['best_val_step'])}"
        losses[-1] += f", {best}"
    if _is_known(row["final_train_loss"]):
        losses.append(f"training loss: last {row['final_train_loss']:.4f}")
    if losses:
        yield "; ".join(losses)
    if _is_known(row["seconds"]):
        pace = row["tokens_per_second"]
        speed = f", {pace:,.0f} tokens/s" if _is_known(pace) else ""
        yield f"{row['seconds']:.1f} s of training{speed}"


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
            groups.setdefault(key, []).append(int(tensor["numel"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        return
    yield "parameters:"
    for (rule, role, lr, decay), sizes in groups.items():
        yield (
            f"  {rule} drives {sum(sizes):,} {role} parameters in {len(sizes)} tensors,"
            f" lr {shown(lr)}, weight_decay {shown(decay)}"
        )
