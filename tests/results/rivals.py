"""Writes the runs of optimizers that are to be compared, with the losses one wants."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gptopt import layout

from .rundirs import PROVENANCE, configure, eval_row, start_row, write_run

STEPS = 200
START = 5.5
MUON = {0.01: [2.18, 2.17, 2.19], 0.02: [2.05, 2.06, 2.04], 0.04: [2.11, 2.12, 2.13]}
ADAMW = {0.001: [2.33, 2.34, 2.35], 0.002: [2.25, 2.26, 2.28], 0.004: [2.43, 2.40, 2.41]}


def curve_to(final: float) -> list[dict[str, Any]]:
    """A validation loss that falls by the same amount every 20 steps."""
    rows = [start_row(1, 0)]
    for step in range(20, STEPS + 1, 20):
        rows.append(eval_row(step, START + (final - START) * step / STEPS))
    return rows


def write_rival(
    root: Path,
    optimizer: str,
    losses: Mapping[float, Sequence[float]],
    *,
    fingerprints: Mapping[str, str] | None = None,
    state: str = "completed",
    **changes: Any,
) -> list[Path]:
    """One run per learning rate and seed; the seed is the place in the list of final losses."""
    runs = []
    for lr, finals in losses.items():
        for seed, final in enumerate(finals):
            config = configure(optimizer, lr, seed, **changes)
            own = {"init_weights": f"w{seed}", "data_order": f"o{seed}"}
            known = PROVENANCE["fingerprints"] | own | dict(fingerprints or {})
            number = next(n for n in itertools.count() if not (root / f"{optimizer}-{n}").exists())
            run = root / f"{optimizer}-{number}"
            rows = curve_to(final)
            write_run(run, config, [rows], state=state, provenance={"fingerprints": known})
            typed = [
                f"optimizer='{optimizer}'",
                "training.training_params.batch_size=8",
                f"optimizer.optimizer_params.lr={lr}",
                f"training.training_params.seed={seed}",
                "paths.output_dir='/somewhere'",
            ]
            (run / layout.OVERRIDES).write_text(yaml.safe_dump(typed))
            runs.append(run)
    return runs


def write_both(root: Path, **of_muon: Any) -> Path:
    """Muon, 0.21 below AdamW at the best rate of each."""
    write_rival(root, "muon", MUON, **of_muon)
    write_rival(root, "adamw", ADAMW)
    return root
