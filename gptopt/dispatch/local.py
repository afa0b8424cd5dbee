"""This machine: a bounded number of runs at the same time, each a process of its own.

The processes are forks of one that has imported everything (``cluster.runs_per_job=1``: new ones).
Ctrl-C, SIGTERM and SIGHUP are passed on to all of them: they save, end with 75, and the next
submission goes on from there; a second Ctrl-C kills.
"""

from __future__ import annotations

import os

from gptopt.config.resolvers import cpu_count, device_count
from gptopt.config.schema import Cluster
from gptopt.dispatch import Submission, exported, pool, prepare
from gptopt.dispatch.start import Cold, Starter, Warm
from gptopt.sweep.record import Record

GPUS = "CUDA_VISIBLE_DEVICES"


def submit(record: Record, cluster: Cluster) -> Submission:
    """Works through the submitted rows and returns when all have ended."""
    prepare(record, cluster)
    rows = record.submitted()
    places = environments(record, cluster)
    common = {name: value for name, value in places[0].items() if name != GPUS}
    starter: Starter = Cold(record) if cluster.runs_per_job == 1 else Warm(record, common)
    return pool.work(record, iter(rows), places, starter, total=len(rows))


def environments(record: Record, cluster: Cluster) -> list[dict[str, str]]:
    """What each worker adds to the environment: its GPU, its share of the cores.

    The share depends on the number of workers, not on that of runs left: the thread count
    enters the last bits of a run, and a resumed run should keep its own.
    """
    visible = os.environ.get(GPUS)
    count = device_count()
    gpus = visible.split(",") if visible and count else [str(number) for number in range(count)]
    workers = cluster.workers or len(gpus) * cluster.workers_per_gpu or cpu_count()
    common = exported(record, cluster, threads=max(1, cpu_count() // workers))
    return [
        common | ({GPUS: gpus[worker % len(gpus)]} if gpus else {}) for worker in range(workers)
    ]
