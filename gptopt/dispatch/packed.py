"""One job that takes run after run from a submission: python -m gptopt.dispatch.packed RECORD FIRST

Any number of such jobs work on one submission. Who holds the lock of a run directory runs it;
a job that finds a run taken goes on to the next, and ends when none is left for it. A request
to stop, or the end of the job's time, saves the runs at work and leaves the rest to do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gptopt.config.schema import Cluster
from gptopt.dispatch import Submission, pool, slurm, submitted_with
from gptopt.dispatch.local import GPUS
from gptopt.dispatch.rest import unclaimed
from gptopt.dispatch.start import Warm
from gptopt.state import ExitCode
from gptopt.sweep.record import Record


def is_wanted(cluster: Cluster) -> bool:
    """Whether a job of ``cluster`` takes more than one run."""
    return (cluster.runs_per_job or 1) > 1 or cluster.workers_per_gpu > 1


def firsts(cluster: Cluster, runs: int, at_once: int) -> list[int]:
    """Where in the plan each job begins: as many jobs as ``runs_per_job`` asks for.

    Args:
        cluster: The settings.
        runs: Submitted.
        at_once: Runs at the same time in one job; fewer would leave places empty.
    """
    return list(range(0, runs, max(cluster.runs_per_job or 1, at_once)))


def drain(record: Record, first: int, *, workers: int) -> Submission:
    """Works until no run is left that nobody else is at.

    Args:
        record: The submission.
        first: Place in its rows to begin at.
        workers: Runs at the same time where there is no GPU.
    """
    cluster = submitted_with(record)
    gpus = os.environ.get(GPUS, "").split(",") if cluster.gpus_per_node else []
    places = [{GPUS: gpu} for gpu in gpus if gpu for _ in range(cluster.workers_per_gpu)]
    rows = unclaimed(record, first, cluster.attempts_without_progress)
    os.environ |= slurm.deadline()  # asked once, not by every run
    return pool.work(
        record,
        rows,
        places or [{}] * workers,
        Warm(record, {}),
        total=len(record.submitted()),
        signals=pool.JOB_SIGNALS,
    )


def main(directory: str, first: str) -> ExitCode:
    """A task of disBatch, which gives it a GPU, and starts as many as there are places."""
    submission = drain(Record(Path(directory)), int(first), workers=1)
    print(submission.message, flush=True)
    if submission.failed:
        return ExitCode.CRASH
    return ExitCode.RUN_AGAIN if submission.unfinished else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(int(main(*sys.argv[1:])))
