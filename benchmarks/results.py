"""Times reading a large tree of runs: first, again, and after some of them changed.

    OMP_NUM_THREADS=1 python benchmarks/results.py [--runs 10000] [--rows 2000]

Writes made-up runs (6 GB at the default size) and the cache (2 GB) into a temporary
directory and removes them. Every reading is a process of its own; CPU seconds beside those
of importing pandas, and the largest memory of the process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

import gptopt
from gptopt import layout

BODIES = 16
AGAIN = 5
READ = """
import resource, sys, time
import pandas, numpy
from gptopt.results import load
began = time.process_time()
found = load(sys.argv[1])
table = time.process_time() - began
rows = found.metrics.memory_usage(deep=False).sum() if sys.argv[2] == "all" else 0
everything = time.process_time() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"{len(found.runs)} runs: table {table:.2f} s", end="")
print(f", everything {everything:.2f} s ({rows / 2**30:.2f} GiB)" if rows else "", end="")
print(f", largest memory {memory:.2f} GiB")
"""


def write_runs(root: Path, runs: int, rows: int) -> None:
    """Finished runs of one sweep; every tenth row is a validation."""
    config = dataclasses.asdict(gptopt.compose(["model=gpt-tiny", "optimizer=muon"]))
    bodies = [_metrics(random.Random(seed), rows) for seed in range(BODIES)]
    for number in range(runs):
        run = root / "gpt-tiny" / "stdlib" / "muon" / f"run-{number:05d}"
        (run / layout.ATTEMPTS).mkdir(parents=True)
        (run / layout.OVERRIDES).parent.mkdir()
        (run / layout.OVERRIDES).write_text("- optimizer=muon\n")
        config["optimizer"]["optimizer_params"]["lr"] = 1e-4 * 2 ** (number % 10)
        config["training"]["training_params"]["seed"] = number // 10
        config["paths"]["run_name"] = run.name
        derived = {"run_id": f"{number:064x}", "max_steps": rows, "total_tokens": 1024 * rows}
        (run / layout.RESOLVED).write_text(
            yaml.dump(config | {"derived": derived}, Dumper=yaml.CSafeDumper, sort_keys=False)
        )
        tensors = [{"name": f"blocks.{n}.weight", "shape": [96, 96]} for n in range(50)]
        provenance = {"host": "node1", "parameters": {"total": 357024, "table": tensors}}
        (run / layout.PROVENANCE).write_text(json.dumps(provenance))
        layout.attempt_file(run, 1).write_text("{}")
        layout.metrics_file(run, 1).write_bytes(bodies[number % BODIES])
        marker = {"state": "completed", "step": rows, "attempt": 1}
        for name in (layout.STATUS, layout.TERMINAL["completed"]):
            (run / name).write_text(json.dumps(marker))


def _metrics(rng: random.Random, rows: int) -> bytes:
    lines = [{"event": "start", "attempt": 1, "start_step": 0, "time": 1.7e9}]
    for step in range(1, rows + 1):
        seen = {"step": step, "tokens": 1024 * step, "seconds": step * rng.random()}
        if step % 10 == 0:
            size = {"optimizer_state_bytes": 1_443_336} if step == rows else {}
            lines.append({"event": "eval"} | seen | {"val_loss": rng.gauss(3, 1)} | size)
            continue
        names = ("train_loss", "lr", "grad_norm", "tokens_per_second", "step_ms", "optimizer_ms")
        measured = {name: rng.gauss(3, 1) for name in (*names, "param_norm")}
        lines.append({"event": "train"} | seen | measured)
    lines.append({"event": "stop", "step": rows, "state": "completed", "reason": "all steps"})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def read(root: Path, what: str, cache: Path) -> str:
    """Loads in a fresh process; ``what`` is "table" or "all"."""
    command = [sys.executable, "-c", READ, str(root), what]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=2_000)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        root, cache = scratch / "outputs", scratch / "cache"
        write_runs(root, given.runs, given.rows)
        print("first, table:     ", read(root, "table", cache), end="")
        shutil.rmtree(cache)
        print("first:            ", read(root, "all", cache), end="")
        for _ in range(AGAIN):
            print("again, table:     ", read(root, "table", cache), end="")
        for _ in range(AGAIN):
            print("again:            ", read(root, "all", cache), end="")
        for run in sorted(root.glob("*/*/*/*"))[:: max(1, given.runs // 10)]:
            with open(layout.metrics_file(run, 1), "ab") as file:
                file.write(b'{"event": "train", "step": 99999, "train_loss": 2.0}\n')
        print("ten runs changed: ", read(root, "all", cache), end="")
        print("cache:             ", f"{_size(cache) / 2**30:.2f} GiB")
    finally:
        shutil.rmtree(scratch)


def _size(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
