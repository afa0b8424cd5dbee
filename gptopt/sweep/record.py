"""What a submission leaves behind: logs/<sweep>/run_info_<N>/, N counted up and never reused.

params.json        the sweep file as it was
conf/              hydra_conf as it was, with that of plugins; jobs compose from it, whatever is
                   edited meanwhile
plan.jsonl         a row per run, written last: a record that has it is complete
cluster.json       the settings of the jobs; source/: their code, with cluster.snapshot_source
jobs.jsonl         what was handed to a queue: job, array element and run
logs/              what the runs printed
refused/           a file for each run that ended before it had a directory, by number
stop               made by a person: no more is started
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gptopt import files, layout
from gptopt.config import resolve
from gptopt.state import read_state
from gptopt.sweep.failures import Failure, of_code
from gptopt.sweep.plan import Plan, PlannedRun

JOB_MODULE = "gptopt.job"
"""``python -m gptopt.job <record> <index>`` runs row ``index``, on every back end."""


@dataclass(frozen=True)
class Row:
    """A run of ``plan.jsonl``; ``is_submitted`` tells whether this submission starts it."""

    index: int
    is_submitted: bool
    run_id: str
    run: str
    overrides: list[str]


class Record:
    """One run_info directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conf = directory / "conf"
        self.logs = directory / "logs"
        self._plan = directory / "plan.jsonl"
        self._jobs = directory / "jobs.jsonl"
        self._refused = directory / "refused"

    @classmethod
    def create(cls, plan: Plan, sweeps: Path) -> Record:
        """Writes the record of a submission of ``plan`` below the directory ``sweeps``."""
        root = sweeps / plan.name
        root.mkdir(parents=True, exist_ok=True)
        number = max(map(_number, root.iterdir()), default=0) + 1
        while True:
            record = cls(root / f"run_info_{number}")
            try:
                record.directory.mkdir()
                break
            except FileExistsError:
                number += 1
        record.logs.mkdir()
        shutil.copyfile(plan.file, record.directory / "params.json")
        for configs in (layout.HYDRA_CONF, *resolve.plugin_configs()):
            shutil.copytree(configs, record.conf, dirs_exist_ok=True)
        rows = (
            Row(run.index, run.is_to_do, run.run_id, str(run.run), run.overrides + run.frozen)
            for run in plan.runs
        )
        files.write(record._plan, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
        return record

    def rows(self) -> Iterator[Row]:
        """Every run of the sweep as it was planned.

        Raises:
            ValueError: The directory is no complete record.
        """
        try:
            with open(self._plan, encoding="utf-8") as lines:
                for line in lines:
                    yield Row(**json.loads(line))
        except OSError:
            raise ValueError(
                f"{self.directory} holds no plan.jsonl: not a sweep's record"
            ) from None

    def runs(self) -> list[PlannedRun]:
        """Every run of the sweep as it stands now."""
        return [
            PlannedRun(
                row.index, row.overrides, [], row.run_id, Path(row.run), read_state(Path(row.run))
            )
            for row in self.rows()
        ]

    def submitted(self) -> list[Row]:
        """The runs that this submission starts."""
        return [row for row in self.rows() if row.is_submitted]

    def row(self, index: int) -> Row:
        """The run with this index.

        Raises:
            ValueError: There is none.
        """
        for row in self.rows():
            if row.index == index:
                return row
        raise ValueError(f"{self._plan} has no run {index}")

    def log(self, index: int) -> Path:
        """Where the run with this index prints to, when it runs on this machine."""
        return self.logs / f"{index}.log"

    def note_refused(self, row: Row, code: int, words: str) -> None:
        """Remembers that a run ended before it had a directory to say so in."""
        self._refused.mkdir(exist_ok=True)
        facts = {"run": row.run, "exit_code": code, "words": words}
        files.write_json(self._refused / f"{row.index}.json", facts)

    def refused(self) -> dict[Path, tuple[int, str]]:
        """Run -> exit code and words, of the runs that ended before they had a directory."""
        notes = [files.read_json(file) or {} for file in sorted(self._refused.glob("*.json"))]
        return {Path(note["run"]): (note["exit_code"], note["words"]) for note in notes if note}

    def note_jobs(self, job: str, rows: Sequence[Row], *, apart: bool = True) -> None:
        """Remembers what SLURM job ``job`` stands for.

        Args:
            job: Its number.
            rows: What it works on.
            apart: Whether array element i runs ``rows[i]``; otherwise any may come to any.
        """
        lines = "".join(
            json.dumps({"job": job, "element": element if apart else None, "run": row.run}) + "\n"
            for element, row in enumerate(rows)
        )
        with open(self._jobs, "a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def note_next(self, job: str) -> None:
        """Remembers the SLURM job that goes on with the next stage; the record stands for it."""
        line = json.dumps({"job": job, "element": None, "run": str(self.directory)})
        with open(self._jobs, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def jobs(self) -> dict[Path, tuple[str, int | None]]:
        """Run directory -> SLURM job, and its array element where there is one for this run.

        The record's own directory stands for the job that goes on with the next stage.
        """
        if not self._jobs.is_file():
            return {}
        entries = map(json.loads, self._jobs.read_text(encoding="utf-8").splitlines())
        return {Path(entry["run"]): (entry["job"], entry["element"]) for entry in entries}


def records(sweeps: Path, name: str) -> Iterable[Record]:
    """Every record of sweep ``name`` so far, oldest first."""
    found = [path for path in (sweeps / name).glob("run_info_*") if _number(path)]
    return [Record(path) for path in sorted(found, key=_number)]


def refusals(records: Iterable[Record]) -> dict[Path, Failure]:
    """Why runs ended before they had a directory, as the newest submission of each tells.

    Args:
        records: The submissions of a sweep, oldest first.
    """
    found: dict[Path, Failure] = {}
    for record in records:
        for row in record.submitted() if found else ():
            found.pop(Path(row.run), None)
        for run, (code, words) in record.refused().items():
            found[run] = of_code(code, words)
    return found


def _number(directory: Path) -> int:
    match = re.fullmatch(r"run_info_(\d+)", directory.name)
    return int(match[1]) if match else 0
