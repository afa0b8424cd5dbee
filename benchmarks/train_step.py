"""What gptopt adds to a training step and to the start of a process.

    python benchmarks/train_step.py [--pairs 5] [--short 50] [--long 450]

Runs whole processes of gptopt and of bare_loop.py in turn, a short and a long one each, on one
thread. CPU seconds (children of this process) of the long minus the short run, per step, are
the steady state with all that happens in it: data, logging every 10 steps, the non-finite
check. What is left of the short run is the start. Medians over the pairs; ratios pair by pair.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds(command: list[str], directory: str) -> float:
    """User and system seconds that ``command`` takes in all."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare(steps: int) -> list[str]:
    """The command of the plain loop."""
    return [sys.executable, str(ROOT / "benchmarks" / "bare_loop.py"), str(steps)]


def gptopt(steps: int) -> list[str]:
    """The command of the same training in gptopt: one evaluation of one window, no checkpoint."""
    return [
        sys.executable,
        str(ROOT / "run_hydra.py"),
        f"training.training_params.max_steps={steps}",
        "logging.logging_params.eval_interval=null",
        "logging.logging_params.eval_tokens=128",
        "checkpoint.save_final=false",
        "+force",
    ]


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--short", type=int, default=50)
    parser.add_argument("--long", type=int, default=450)
    given = parser.parse_args()
    rows = []
    for number in range(given.pairs + 1):  # the first pair warms the caches and is not counted
        row = []
        for command in (bare, gptopt):
            with tempfile.TemporaryDirectory() as directory:
                short = cpu_seconds(command(given.short), directory)
                long = cpu_seconds(command(given.long), directory)
            step = (long - short) / (given.long - given.short)
            row += [1e3 * step, short - given.short * step]
        if number:
            rows.append(row)
            print("bare {:.2f} ms/step, start {:.2f} s | gptopt {:.2f}, {:.2f}".format(*row))
    speed = statistics.median(row[0] / row[2] for row in rows)
    start = statistics.median(row[3] - row[1] for row in rows)
    print(f"tokens/s of gptopt over those of the bare loop, CPU time, median: {speed:.3f}")
    print(f"CPU seconds from process start to the end beside the steps, difference: {start:+.2f}")


if __name__ == "__main__":
    main()
