"""Run directories -> one row per run and one row per logged event.

Everything is read from the files of a run: never from SLURM, a tracker or the name of a
directory. Whatever cannot be read is left out and counted in ``Runs.problems``; no content
raises. docs/results.md describes the columns; they are an interface.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gptopt import layout
from gptopt.results.columns import METRIC_COLUMNS, RUN_NUMBERS, RUN_TEXTS
from gptopt.results.read import SEEDS, TRIAL, WORKLOAD, Problems, below, read_run

if TYPE_CHECKING:
    import pandas as pd

Paths = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Runs:
    """What ``load`` found.

    Attributes:
        runs: A row per run; ``run_id`` is unique.
        metrics: A row per logged measurement, in the order of training; ``run_id`` joins.
        problems: What was left out: path, problem, count.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    problems: pd.DataFrame

    def of(self, run_id: str) -> pd.DataFrame:
        """The metrics of one run."""
        return self.metrics[self.metrics["run_id"] == run_id]

    def workloads(self) -> dict[str, Runs]:
        """The runs that may be compared with each other, by a title.

        One workload is one model on one corpus with one context length for one number of
        training tokens. Where these share their names, the title says what differs.
        """
        kinds = self.runs.drop_duplicates("workload")
        titles = [
            f"{row['model']} on {row['dataset']}, {row['total_tokens']:,.0f} tokens"
            for _, row in kinds.iterrows()
        ]
        parts = {}
        for title, (_, row) in zip(titles, kinds.iterrows(), strict=True):
            alike = kinds[[other == title for other in titles]]
            keys = [key for key in map(str, alike) if below(key, WORKLOAD) and _varies(alike[key])]
            marks = "".join(f", {key.rsplit('.', 1)[-1]}={row[key]}" for key in keys)
            runs = self.runs[self.runs["workload"] == row["workload"]]
            metrics = self.metrics[self.metrics["run_id"].isin(runs["run_id"])]
            parts[title + marks] = Runs(runs, metrics, self.problems)
        return {title: parts[title] for title in sorted(parts)}


def load(paths: Paths) -> Runs:
    """Reads every run directory at or below ``paths``.

    Args:
        paths: One or several directories. Links to run directories (``multirun/``) count,
            other links are not followed. A run found twice is read once.
    """
    import pandas as pd

    problems: Problems = Counter()
    found: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    roots = [paths] if isinstance(paths, (str, Path)) else paths
    for run in dict.fromkeys(run for root in roots for run in _find(Path(root), problems)):
        read = read_run(run, problems)
        if read is None:
            continue
        run_id = read[0]["run_id"]
        if run_id in found:
            # A copy is no second seed. Of two, the one that was started last replaced the other.
            older, read = sorted((read, found[run_id]), key=_age)
            problems[older[0]["path"], f"same run as {read[0]['path']}"] += 1
        found[run_id] = read

    runs = pd.DataFrame([row for row, _ in found.values()])
    runs = runs.reindex(columns=list(RUN_TEXTS | RUN_NUMBERS | dict.fromkeys(runs)))
    runs[list(RUN_NUMBERS)] = runs[list(RUN_NUMBERS)].apply(pd.to_numeric)
    metrics = pd.DataFrame([row for _, rows in found.values() for row in rows])
    metrics = metrics.reindex(columns=list(METRIC_COLUMNS | dict.fromkeys(metrics)))
    counted = [(path, problem, count) for (path, problem), count in problems.items()]
    return Runs(runs, metrics, pd.DataFrame(counted, columns=["path", "problem", "count"]))


def swept(runs: pd.DataFrame) -> list[str]:
    """Columns of the configuration, seeds apart, that one optimizer was run with several of."""
    groups = [group for _, group in runs.groupby(["workload", "optimizer"])]
    return [
        column
        for column in map(str, runs)
        if below(column, TRIAL)
        and column not in SEEDS
        and any(_varies(group[column]) for group in groups)
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries, by column."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def _varies(column: pd.Series) -> bool:
    return column.nunique(dropna=False) > 1


def _age(read: tuple[dict[str, Any], Any]) -> tuple[float, int]:
    started = read[0]["started"]
    return (-math.inf if started is None else started, read[0]["step"])


def _find(root: Path, problems: Problems) -> Iterator[Path]:
    """Run directories at or below ``root``, resolved, sorted within each directory."""

    def unreadable(error: OSError) -> None:
        problems[str(error.filename), f"cannot be read: {error.strerror}"] += 1

    for directory, children, _ in os.walk(root, onerror=unreadable):
        if os.path.isfile(os.path.join(directory, layout.RESOLVED)):
            children.clear()
            yield Path(directory).resolve()
        children[:] = sorted(child for child in children if not child.startswith("."))
        for child in (Path(directory, child) for child in children):
            if child.is_symlink() and os.path.isfile(child / layout.RESOLVED):
                yield child.resolve()
