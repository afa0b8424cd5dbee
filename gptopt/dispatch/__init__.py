"""Starting the runs of a sweep: one contract, one file per back end.

A back end is a module with ``submit(record, cluster) -> Submission``. It starts
``python -m gptopt.job <record> <index>`` for every submitted row, or the same inside a process
of its own, and knows nothing else of a run: how a run stands is read from its directory.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gptopt.config.schema import Cluster
from gptopt.sweep.record import Record


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
