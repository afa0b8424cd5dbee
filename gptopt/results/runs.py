"""The tables of several runs, and what one asks of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gptopt.results.columns import SEEDS, TRIAL, WORKLOAD, below

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Runs:
    """What ``load`` found. The two tables of logged rows are read when they are asked for.

    Attributes:
        runs: A row per run; ``run_id`` is unique.
        problems: What was left out: path, problem, count.
        read_metrics, read_diagnostics: Make the properties of these names.
    """

    runs: pd.DataFrame
    problems: pd.DataFrame
    read_metrics: Callable[[], pd.DataFrame]
    read_diagnostics: Callable[[], pd.DataFrame]

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per logged measurement; ``run_id`` joins.

        The rows of a run are in the order of training, the runs in any order.
        """
        return self.read_metrics()

    @functools.cached_property
    def diagnostics(self) -> pd.DataFrame:
        """A row per diagnostic number; ``run_id`` joins. Ordered as ``metrics`` is."""
        return self.read_diagnostics()

    def of(self, run_id: str) -> pd.DataFrame:
        """The metrics of one run."""
        return self.metrics[self.metrics["run_id"] == run_id]

    def only(self, chosen: pd.Series) -> Runs:
        """The runs whose rows ``chosen`` marks, with what they logged.

        Args:
            chosen: True or False for each row of ``runs``.
        """
        runs = self.runs[chosen]

        def part(table: pd.DataFrame) -> pd.DataFrame:
            rows = table[table["run_id"].isin(runs["run_id"])]
            return rows.assign(run_id=rows["run_id"].cat.remove_unused_categories())

        return Runs(runs, self.problems, lambda: part(self.metrics), lambda: part(self.diagnostics))

    def workloads(self) -> dict[str, Runs]:
        """The runs that may be compared with each other, by a title.

        One workload is one model on one corpus with one context length for one number of
        training tokens. Where these share their names, the title says what differs.
        """
        kinds = self.runs.drop_duplicates("workload")
        titles = [
            f"{row['model']} on {row['dataset']}, {_count(row['total_tokens'])} tokens"
            for _, row in kinds.iterrows()
        ]
        parts = {}
        for title, (_, row) in zip(titles, kinds.iterrows(), strict=True):
            alike = kinds[[other == title for other in titles]]
            keys = [key for key in map(str, alike) if below(key, WORKLOAD) and _varies(alike[key])]
            marks = "".join(f", {key.rsplit('.', 1)[-1]}={row[key]}" for key in keys)
            if title + marks in parts:  # such as a setting that is 8 here and 8.0 there
                marks += f", workload={row['workload']}"
            parts[title + marks] = self.only(self.runs["workload"] == row["workload"])
        return {title: parts[title] for title in sorted(parts)}


def swept(runs: pd.DataFrame) -> list[str]:
    """Columns of the configuration, seeds apart, that one optimizer was run with several of."""
    varied = {name for one in settings_of(runs).values() for name in one}
    return [column for column in map(str, runs) if column in varied]


def settings_of(runs: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What varied within each optimizer of each workload, by workload, optimizer and trial.

    The values are by column of the configuration, seeds apart.
    """
    keys = ["workload", "optimizer", "trial"]
    one_each = runs.drop_duplicates(keys)
    varied = [
        column
        for column in map(str, runs)
        if below(column, TRIAL) and column not in SEEDS and _varies(one_each[column])
    ]
    found = {}
    for _, group in one_each.groupby(keys[:2]):
        own = [column for column in varied if _varies(group[column])]
        for key, values in zip(
            group[keys].itertuples(index=False, name=None), records(group[own]), strict=True
        ):
            found[key] = values
    return found


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries, by column."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def _count(number: float) -> str:
    return f"{number:,.0f}" if math.isfinite(number) else "unknown"


def _varies(column: pd.Series) -> bool:
    return column.nunique(dropna=False) > 1
