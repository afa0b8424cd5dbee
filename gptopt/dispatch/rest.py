"""What of a submission is left to do, and whether another turn of its job would help.

Everything is read from the record and the run directories, so any number of jobs may work on
one submission, one after another or at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptopt import layout
from gptopt.files import read_json
from gptopt.state import is_replaced, newest_record, read_state
from gptopt.sweep.record import Record, Row

TURN_OVER = "GPTOPT_TURN_OVER"
"""The variable that names a file; once that exists, no more runs are started in this turn."""


def is_cancelled(record: Record) -> bool:
    """Whether a person has asked to start no more of ``record``."""
    return (record.directory / layout.STOP_FILE).exists()


def is_over(record: Record) -> bool:
    """Whether no more runs should be started here and now."""
    file = os.environ.get(TURN_OVER)
    return is_cancelled(record) or (file is not None and Path(file).exists())


def unfinished(record: Record) -> list[Row]:
    """Submitted rows that have no result, and neither failed nor were stopped by a person since."""
    return [row for row in record.submitted() if _is_unfinished(record, row)]


def unclaimed(record: Record, first: int, limit: int) -> Iterator[Row]:
    """Unfinished rows that nobody runs at the moment when they are asked for.

    An earlier start of this job, on a node that SLURM has given up, is nobody.

    Args:
        record: The submission.
        first: Place in the plan to begin at; jobs that begin apart meet late.
        limit: Rows that were tried so often in vain are left out.
    """
    rows = record.submitted()
    for row in rows[first:] + rows[:first]:
        run = Path(row.run)
        is_taken = is_running(run) and not is_replaced(newest_record(run))
        if (
            _is_unfinished(record, row)
            and not is_taken
            and not is_stuck(run, limit, since=_submitted_at(record))
        ):
            yield row


def failed(record: Record) -> int:
    """How many submitted rows have failed since the submission."""
    return sum(_since(record, row, layout.TERMINAL["failed"]) for row in record.submitted())


def is_running(run: str | Path) -> bool:
    """Whether somebody runs it at present."""
    return read_state(Path(run)).state == "running"


def is_stuck(run: Path, limit: int, *, since: float = 0.0) -> bool:
    """Whether the last ``limit`` attempts, all begun after ``since``, have saved no further step.

    A run that dies ahead of its first checkpoint every time would go on for ever.
    """
    saved = (read_json(run / layout.STATUS) or {}).get("saved_step", 0)
    numbers = layout.attempt_numbers(run)[-limit:]
    records = [read_json(layout.attempt_file(run, number)) or {} for number in numbers]
    return len(records) == limit and all(
        record.get("started", 0.0) >= since and record.get("start_step", saved) >= saved
        for record in records
    )


def may_go_on(run: Path, limit: int) -> bool:
    """Whether ``run`` was told to make room (not to end), and is not stuck."""
    return read_state(run).state == "preempted" and not is_stuck(run, limit)


class Turn:
    """One turn of a job that works on many runs.

    Args:
        record: The submission.
        limit: Attempts in a row that may bring nothing.
    """

    def __init__(self, record: Record, limit: int) -> None:
        self._record = record
        self._limit = limit
        self.rows = unfinished(record)
        self._before = [(row, read_state(Path(row.run)).attempt) for row in self.rows]

    def another_helps(self, left: Sequence[Row]) -> bool:
        """Whether some run got to its end in this turn, or was begun and is not stuck.

        Args:
            left: What is unfinished now.
        """
        if not left or is_cancelled(self._record):
            return False
        for row, attempt in self._before:
            run = Path(row.run)
            state = read_state(run)
            if state.attempt > attempt and (state.terminal or not is_stuck(run, self._limit)):
                return True
        return False


def _is_unfinished(record: Record, row: Row) -> bool:
    return (
        read_state(Path(row.run)).state not in ("completed", "diverged")
        and not _since(record, row, layout.TERMINAL["failed"])
        and not _since(record, row, layout.STOP_FILE)
    )


def _since(record: Record, row: Row, name: str) -> bool:
    """Whether a file of a run is younger than the submission."""
    try:
        return (Path(row.run) / name).stat().st_mtime > _submitted_at(record)
    except FileNotFoundError:
        return False


def _submitted_at(record: Record) -> float:
    return (record.directory / "plan.jsonl").stat().st_mtime
