"""Starting the runs of a sweep: one contract, one file per back end.

A back end is a module with ``submit(record, cluster) -> Submission``. It starts
``python -m gptopt.job <record> <index>`` for every submitted row, or the same inside a process
of its own, and knows nothing else of a run: how a run stands is read from its directory.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gptopt import files, layout, source
from gptopt.config.schema import Cluster
from gptopt.dispatch import rest, slurm
from gptopt.state import newest_record
from gptopt.sweep.record import Record

CLUSTER = "cluster.json"
SOURCE = "source"


@dataclass(frozen=True)
class Submission:
    """What became of a submission by the time that ``submit`` returned.

    Attributes:
        message: For the person who submitted.
        jobs: Ids of the jobs that wait in a queue; empty where the runs have ended already.
        failed: Runs that ended without a result.
        unfinished: Runs that stopped with a checkpoint, or were never started.
    """

    message: str
    jobs: Sequence[str] = ()
    failed: int = 0
    unfinished: int = 0


class SubmissionError(RuntimeError):
    """Nothing could be started; the message holds the back end's own words."""


class Backend(Protocol):
    """A module of this package."""

    def submit(self, record: Record, cluster: Cluster) -> Submission:
        """Starts the submitted rows of ``record``.

        Raises:
            SubmissionError: The back end refuses.
        """


def backend(name: str) -> Backend:
    """The back end called ``name``: local, submitit, disbatch."""
    return importlib.import_module(f"gptopt.dispatch.{name}")


def cancel(record: Record) -> int:
    """Starts no more of ``record`` and stops what is at work; a submission goes on from there.

    Jobs of SLURM are cancelled, waiting or running; one that works with disBatch ends by
    itself, after its runs have saved. Runs outside of SLURM save and stop.

    Returns:
        How many were told: jobs and array elements in the queue, and runs outside of it.
    """
    (record.directory / layout.STOP_FILE).touch()
    told = slurm.cancel(record)
    for row in record.submitted():
        run = Path(row.run)
        if rest.is_running(run) and not newest_record(run).get("job"):
            (run / layout.STOP_FILE).touch()
            told += 1
    return told


def prepare(record: Record, cluster: Cluster) -> None:
    """Writes what the jobs of ``record`` read: the settings, and a copy of the code on request.

    ``env`` is not written: it may hold secrets, and jobs inherit it.
    """
    content = dataclasses.asdict(dataclasses.replace(cluster, env={}))
    files.write_json(record.directory / CLUSTER, content)
    if cluster.snapshot_source:
        source.copy(record.directory / SOURCE, record.conf)


def submitted_with(record: Record) -> Cluster:
    """The settings that ``record`` was submitted with, ``env`` apart."""
    return Cluster(**json.loads((record.directory / CLUSTER).read_text(encoding="utf-8")))


def exported(record: Record, cluster: Cluster, *, threads: int) -> dict[str, str]:
    """What runs find in their environment beside the submitter's; never written into a file.

    Args:
        record: The submission.
        cluster: Its settings.
        threads: CPU threads of a run where ``cluster`` does not say.
    """
    pinned = str(cluster.threads or threads)
    found = {"OMP_NUM_THREADS": pinned, "MKL_NUM_THREADS": pinned}
    found["OPENBLAS_NUM_THREADS"] = "1"  # numpy's: not used, but started at its import
    if cluster.snapshot_source:
        paths = [str((record.directory / SOURCE).absolute()), os.environ.get("PYTHONPATH")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        found["PYTHONSAFEPATH"] = "1"  # else the working directory would come first
    return found | {name: str(value) for name, value in cluster.env.items()}
