"""The tables of a report, and what of a sweep is worth a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gptopt.results.load import records, swept
from gptopt.results.page import Table
from gptopt.results.select import brief
from gptopt.results.stats import BASELINE

if TYPE_CHECKING:
    import pandas as pd

RATE = "optimizer.optimizer_params.lr"
OVERVIEW = [
    "model",
    "dataset",
    "optimizer",
    "lr",
    "seed",
    "state",
    "step",
    "max_steps",
    "final_val_loss",
    "best_val_loss",
    "final_train_loss",
    "seconds",
    "tokens_per_second",
]
FORMATS = {
    "final_val_loss": ".4f",
    "best_val_loss": ".4f",
    "final_train_loss": ".4f",
    "seconds": ".1f",
    "tokens_per_second": ".0f",
}
PROVENANCE = {
    "runs": "state",
    "sweep": "sweep",
    "model": "model",
    "parameters": "run.parameters.total",
    "without embeddings": "run.parameters.non_embedding",
    "dataset": "dataset",
    "training tokens per run": "total_tokens",
    "lowest possible loss": "run.best_loss",
    "code": "run.git.commit",
    "uncommitted changes": "run.git.dirty",
    "torch": "run.versions.torch",
    "device": "run.device",
    "threads": "run.threads",
    "host": "run.host",
}
FEWEST_VALUES = 3
"""Values of a setting that make a curve."""


def overview(runs: pd.DataFrame) -> pd.DataFrame:
    """A few columns of the table of runs: what was swept, and what came out."""
    extra = [column for column in swept(runs) if column != RATE]
    place = OVERVIEW.index("state")
    columns = [*OVERVIEW[:place], *extra, *OVERVIEW[place:], "run_name"]
    return runs.sort_values(["model", "dataset", "optimizer", "lr", "seed"])[columns]


def all_runs(runs: pd.DataFrame) -> Table:
    """``overview`` of one workload."""
    shown = overview(runs).drop(columns=["model", "dataset"])
    names = list(map(str, shown))
    rows = [[_cell(name, row[name]) for name in names] for row in records(shown)]
    return Table([short(name, names) for name in names], rows)


def best(found: pd.DataFrame) -> Table:
    """A row per optimizer, of ``stats.best_trials`` of one workload."""
    from gptopt.results.stats.significance import holm

    head = ["optimizer", "lr", "validation loss ± sd", "seeds", "95 % interval"]
    head += [f"gap to {BASELINE}", "p", "p (Holm)", "trials", "rates", "lr is the"]
    rows = [
        [
            row["optimizer"],
            brief(row["lr"]),
            _join(" ± ", row["mean"], row["sd"]),
            str(row["n"]),
            _join(" to ", row["low"], row["high"]),
            _number(row["gap"], "+.4f"),
            _p(row["p"]),
            _p(adjusted),
            str(row["trials"]),
            str(len(row["rates"])),
            f"{row['edge']} tried" if row["edge"] else "",
        ]
        for row, adjusted in zip(records(found), holm(found["p"].tolist()), strict=True)
    ]
    return Table(head, rows)


def ablation(data: pd.DataFrame) -> Table:
    """A row per trial, of ``plots.ablation``."""
    head = ["setting", "value", "seeds", "validation loss ± sd", "gap", "95 % interval", "p"]
    rows = [
        [
            short(row["setting"], list(data["setting"])) or "best trial",
            _cell("", row["value"]),
            str(row["n"]),
            _join(" ± ", row["mean"], row["sd"]),
            _number(row["gap"], "+.4f"),
            _join(" to ", row["low"], row["high"]),
            _p(row["p"]),
        ]
        for row in records(data)
    ]
    return Table(head, rows)


def budget(runs: pd.DataFrame) -> Table:
    """What was spent on each optimizer, and what became of its runs."""
    head = ["optimizer", "runs", "completed", "diverged", "failed", "not ended"]
    head += ["trials", "learning rates", "seeds", "hours"]
    rows = []
    for optimizer, mine in runs.groupby("optimizer"):
        states = mine["state"].value_counts()
        counts = [int(states.get(state, 0)) for state in ("completed", "diverged", "failed")]
        spent = mine["seconds"].sum() / 3600
        numbers = [len(mine), *counts, len(mine) - sum(counts), mine["trial"].nunique()]
        numbers += [mine["lr"].nunique(), mine["seed"].nunique()]
        rows.append([str(optimizer), *map(str, numbers), f"{spent:.2f}"])
    return Table(head, rows)


def provenance(runs: pd.DataFrame) -> Table:
    """Where the runs come from: each value with the number of runs that have it."""
    rows = [
        [label, _counts(runs[column])] for label, column in PROVENANCE.items() if column in runs
    ]
    hours = runs["seconds"].sum() / 3600
    rows += [["training time, all runs", f"{hours:.2f} h"]]
    return Table(["", "value (runs)"], [row for row in rows if row[1]])


# --- what of a sweep is worth a figure ----------------------------------------------------------


def numeric_axes(runs: pd.DataFrame) -> list[str]:
    """Settings beside the learning rate of which some optimizer had three or more numbers."""
    return [
        column
        for column in swept(runs)
        if column != RATE
        and is_numeric(runs[column])
        and runs.groupby("optimizer")[column].nunique().max() >= FEWEST_VALUES
    ]


def pairs(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """For each optimizer that was run on a grid, its two settings with the most values.

    The learning rate, where it is one of them, comes first.
    """
    found = {}
    for optimizer, mine in runs.groupby("optimizer"):
        values = {column: mine[column].nunique(dropna=False) for column in swept(mine)}
        values = {column: n for column, n in values.items() if n > 1}
        ranked = sorted(values, key=lambda column: (column != RATE, -values[column]))[:2]
        cells = len(mine.drop_duplicates(ranked)) if len(ranked) == 2 else 0
        if cells > sum(values[column] for column in ranked):  # more than a cross
            found[str(optimizer)] = ranked[0], ranked[1]
    return found


def is_numeric(column: pd.Series) -> bool:
    """Whether all known values are numbers; true and false are none."""
    known = column.dropna()
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)


def is_diagnosed(runs: pd.DataFrame) -> bool:
    """Whether some run logs diagnostics."""
    column = "derived.diagnostics_interval"
    return column in runs and bool(runs[column].fillna(0).astype(bool).any())


# --- cells --------------------------------------------------------------------------------------


def short(name: str, names: list[str]) -> str:
    """The last part of a dotted name, unless another one ends alike."""
    last = name.rpartition(".")[2]
    alike = {other for other in names if other.rpartition(".")[2] == last}
    return name if len(alike) > 1 else last


def _counts(column: pd.Series) -> str:
    counts = column.value_counts(sort=False)
    return ", ".join(f"{_cell('', value)} ({n})" for value, n in counts.items())


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _number(value, FORMATS.get(name, ",.10g" if name == "" else ".10g"))
    return "" if value is None else str(value)


def _join(word: str, *values: float) -> str:
    return word.join(filter(None, (_number(value, ".4f") for value in values)))


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else _number(value, ".4f")


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
