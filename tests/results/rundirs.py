"""Writes run directories by the interface of docs/results.md, without training anything."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import socket
from pathlib import Path
from typing import Any

import yaml

from gptopt import layout

TOKENS_PER_STEP = 1024
CONFIG: dict[str, Any] = {
    "model": {"name": "gpt-tiny", "family": "gpt", "config": {"n_layer": 2, "n_embd": 64}},
    "data": {"name": "stdlib", "format": "stdlib", "tokenizer": "bytes"},
    "optimizer": {"optimizer_params": {"name": "adamw", "lr": 0.001, "betas": [0.9, 0.95]}},
    "lr_scheduler": {"name": "wsd", "warmup_steps": 10},
    "training": {"training_params": {"max_steps": 200, "batch_size": 8, "seed": 0}},
    "logging": {"logging_params": {"log_interval": 10}, "trackers": {}},
    "checkpoint": {"init_from": None},
    "distributed": {"strategy": "auto"},
    "paths": {"output_dir": "outputs", "run_name": "lr-0.001", "sweep": None},
    "args": {},
}
PROVENANCE: dict[str, Any] = {
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "versions": {"gptopt": "0.1.0", "torch": "2.13.0"},
    "host": "node7",
    "device": "cpu",
    "threads": 1,
    "fingerprints": {"data": "d1", "eval": "e1", "init_weights": "w1", "data_order": "o1"},
    "data": {"train.txt": "sha256 of it"},
    "parameters": {"total": 160_000, "non_embedding": 130_000, "table": [{"name": "wte"}]},
}


def configure(optimizer: str, lr: float, seed: int, **changes: Any) -> dict[str, Any]:
    """A resolved config; ``changes`` are values by dotted key, dots written as ``__``."""
    config = copy.deepcopy(CONFIG)
    name = f"lr-{lr}-seed-{seed}"
    keys = {
        "optimizer.optimizer_params.name": optimizer,
        "optimizer.optimizer_params.lr": lr,
        "training.training_params.seed": seed,
        "paths.run_name": name,
    }
    for key, value in (keys | {k.replace("__", "."): v for k, v in changes.items()}).items():
        *nodes, leaf = key.split(".")
        place = config
        for node in nodes:
            place = place[node]
        place[leaf] = value
    steps = config["training"]["training_params"]["max_steps"]
    identity = json.dumps([config[n] for n in ("model", "data", "optimizer", "training")])
    config["derived"] = {
        "run_id": hashlib.sha256(identity.encode()).hexdigest(),
        "max_steps": steps,
        "context_length": 128,
        "total_tokens": steps * TOKENS_PER_STEP,
    }
    return config


def train_row(step: int, loss: float | str, lr: float = 0.001, **more: Any) -> dict[str, Any]:
    """A training row; a loss given as "nan" or "inf" is logged as the interface says."""
    row = {"event": "train", "step": step, "tokens": step * TOKENS_PER_STEP, "train_loss": loss}
    row |= {"lr": lr, "seconds": step * 0.05, "tokens_per_second": 20480.0, **more}
    return _strict(row, "train_loss")


def eval_row(step: int, loss: float | str, **more: Any) -> dict[str, Any]:
    """A validation row."""
    row = {"event": "eval", "step": step, "tokens": step * TOKENS_PER_STEP, "val_loss": loss}
    return _strict(row | {"seconds": step * 0.05, **more}, "val_loss")


def _strict(row: dict[str, Any], key: str) -> dict[str, Any]:
    if isinstance(row[key], str):
        row |= {"nonfinite": {key: row[key]}, key: None}
    return row


def start_row(attempt: int, start_step: int) -> dict[str, Any]:
    """The first row of an attempt."""
    return {"event": "start", "attempt": attempt, "start_step": start_step, "time": 1e9 + attempt}


def write_run(
    run: Path,
    config: dict[str, Any],
    attempts: list[list[dict[str, Any]]],
    *,
    state: str = "completed",
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Writes one run directory; ``attempts`` holds each attempt's rows of metrics."""
    (run / layout.ATTEMPTS).mkdir(parents=True)
    (run / layout.LOCK).touch()
    (run / layout.RESOLVED).write_text(yaml.safe_dump(config))
    (run / layout.OVERRIDES).parent.mkdir()
    (run / layout.OVERRIDES).write_text("- optimizer=muon\n- paths.run_name=it's\n")
    (run / layout.PROVENANCE).write_text(json.dumps(PROVENANCE | (provenance or {})))
    for number, rows in enumerate(attempts, start=1):
        layout.attempt_file(run, number).write_text(json.dumps({"host": socket.gethostname()}))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        layout.metrics_file(run, number).write_text(text)
    step = max((row.get("step", 0) for rows in attempts for row in rows), default=0)
    status = {"state": state, "reason": f"it {state}", "step": step, "attempt": len(attempts)}
    file = layout.TERMINAL.get(state, layout.STATUS)
    (run / file).write_text(json.dumps(status))
    return run


def curve(final: float, steps: int, rng: random.Random, pace: float = 1.0) -> list[dict[str, Any]]:
    """Rows of a run that falls from ln 256 to ``final``; at ``final = inf`` it blows up."""
    rows: list[dict[str, Any]] = [start_row(1, 0)]
    blown = not math.isfinite(final)
    for step in range(10, steps + 1, 10):
        share = step / steps
        loss = (2.4 if blown else final) + 3.1 * math.exp(-9 * share) * (1 - share)
        if blown and share > 0.3:
            loss += math.exp(12 * (share - 0.3))
            if share > 0.5:
                return [*rows, train_row(step, "nan")]
        seconds = {"seconds": step * 0.05 * pace}
        rows.append(train_row(step, loss + rng.gauss(0, 0.05), **seconds))
        if step % 20 == 0:
            rows.append(eval_row(step, loss, **seconds))
    return [*rows, {"event": "stop", "step": steps, "state": "completed", "reason": "max_steps"}]


FINALS = {
    "adamw": {0.001: 2.441, 0.002: 2.388, 0.004: 2.363, 0.008: 2.313, 0.016: 2.503},
    "muon": {0.005: 2.300, 0.01: 2.180, 0.02: 2.078, 0.04: 2.054, 0.08: 2.294, 0.32: math.inf},
    "sgd": {0.1: 3.15, 0.3: 2.86, 1.0: 2.71, 3.0: 2.66},
    "dap-ns-nadam": {0.001: 2.253, 0.003: 2.174, 0.01: 2.319, 0.03: 7.78},
}


def write_sweep(root: Path, *, seeds: int = 2, steps: int = 200) -> Path:
    """A learning-rate sweep: an edge (sgd), a divergence (muon), a failure, a run in progress.

    The directories' names say nothing true about the runs in them.
    """
    rng = random.Random(0)
    number = 0
    for pace, (optimizer, finals) in zip((1.0, 1.2, 0.9, 2.4), FINALS.items(), strict=True):
        for lr, final in finals.items():
            for seed in range(seeds):
                run = root / "gpt2" / "c4" / "adam" / f"lr-1-seed-9-{number:03d}"
                number += 1
                config = configure(optimizer, lr, seed, paths__sweep="lr_sweep")
                rows = curve(final + rng.gauss(0, 0.015), steps, rng, pace)
                state = "completed" if math.isfinite(final) else "diverged"
                write_run(run, config, [rows], state=state)
    config = configure("adamw", 0.008, 98, paths__sweep="lr_sweep")
    write_run(root / "failed", config, [curve(2.3, steps, rng)[:7]], state="failed")
    config = configure("muon", 0.04, 99, paths__sweep="lr_sweep")
    write_run(root / "running", config, [curve(2.0, steps, rng)[:20]], state="interrupted")
    return root
