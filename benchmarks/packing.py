"""What packing saves: many short runs as forks of one process, and each as a process of its own.

    python benchmarks/packing.py --runs 60 --blocks 4 --steps 100

Both sides work through the same sweeps on this machine with two workers, block after block in
turns. Printed: CPU seconds (user and system) of all processes, and wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = {"one process per run": "1", "forks": "null"}
WORKERS = 2


def sweep(steps: int, seeds: list[int]) -> dict[str, object]:
    """Runs of a tiny model, each with a seed of its own."""
    return {
        "model.config.n_layer": 2,
        "model.config.n_embd": 64,
        "model.config.n_head": 2,
        "data": "grammar",
        "context_length": 64,
        "bs": 4,
        "steps": steps,
        "logging.logging_params.eval_tokens": 4096,
        "seed": seeds,
    }


def measure(content: dict[str, object], runs_per_job: str) -> tuple[float, float]:
    """CPU seconds and seconds of one submission, all its processes included."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "sweep.json").write_text(json.dumps(content))
        command = [sys.executable, "-m", "gptopt.cli", "sweep", "submit", "sweep.json"]
        command += ["--via", "local", f"cluster.workers={WORKERS}", "cluster.threads=1"]
        before, began = os.times(), time.perf_counter()
        subprocess.run(
            [*command, f"cluster.runs_per_job={runs_per_job}"],
            cwd=directory,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after, ended = os.times(), time.perf_counter()
        completed = len(list(Path(directory).rglob("completed.json")))
    assert completed == len(content["seed"])  # type: ignore[arg-type]
    used = after.children_user + after.children_system
    return used - before.children_user - before.children_system, ended - began


def main() -> None:
    """Prints both sides, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    told = parser.parse_args()
    length = told.runs // told.blocks
    cpu = dict.fromkeys(SIDES, 0.0)
    wall = dict.fromkeys(SIDES, 0.0)
    for block in range(told.blocks):
        seeds = list(range(block * length, (block + 1) * length))
        for side, runs_per_job in SIDES.items():
            used, took = measure(sweep(told.steps, seeds), runs_per_job)
            cpu[side] += used
            wall[side] += took
            print(f"block {block}: {side}: {used:.1f} CPU s, {took:.1f} s", flush=True)
    runs = told.blocks * length
    for side in SIDES:
        print(f"{runs} runs, {side}: {cpu[side] / runs:.2f} CPU s a run, {wall[side]:.0f} s in all")
    cold, warm = cpu.values()
    print(f"forks use {warm / cold:.2f} of the CPU time")


if __name__ == "__main__":
    main()
