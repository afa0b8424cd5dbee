"""CPU seconds and memory of planning a sweep: reading it, composing and checking every point.

python benchmarks/planning.py --points 100000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path

from gptopt.sweep.plan import plan


def sweep_of(points: int) -> dict[str, object]:
    """Two optimizers, four batch sizes, five decays and five seeds with as many rates as it takes.

    Where points is no multiple of 200, there are fewer.
    """
    return {
        "optimizer": ["adamw", "muon"],
        "bs": [8, 16, 32, 64],
        "wd": [0, 0.01, 0.03, 0.1, 0.3],
        "seed": [0, 1, 2, 3, 4],
        "lr": [round(1e-5 * (1 + step), 10) for step in range(points // 200)],
    }


def main() -> None:
    """Plans the sweep in an empty directory, so that every run is to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        file = Path("sweep.json")
        file.write_text(json.dumps(sweep_of(points)))
        planned = plan(file, [], max_runs=points)
        print("\n".join([planned.summary(), *planned.lines()]))
        os.chdir("/")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_utime + used.ru_stime:.2f} CPU seconds, {used.ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
