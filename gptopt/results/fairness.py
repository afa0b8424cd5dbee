"""What a reader must know before believing a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from gptopt.results.columns import SEEDS, TRIAL, WORKLOAD, below
from gptopt.results.load import records
from gptopt.results.select import ABSENT, brief, shown
from gptopt.results.stats import BASELINE, best_trials, trials
from gptopt.results.stats.summary import seeds_of
from gptopt.results.tuned import tuning_doubts
from gptopt.state import ExitCode

if TYPE_CHECKING:
    import pandas as pd

SAME = {
    "run.fingerprints.data": "training data",
    "run.fingerprints.eval": "validation tokens",
    "run.parameters.total": "parameter counts",
    "run.git.commit": "code versions",
    "run.versions.torch": "torch versions",
    "run.device": "devices",
}
"""Provenance that all runs of one workload should share."""
SAME_PER_OPTIMIZER = {
    "run.optimizer_code.sha256": "plugin files",
    "run.optimizer_code.version": "versions of the package that brings it",
}
"""Provenance that all runs of an optimizer from elsewhere should share."""
FEWEST_RATES = 3
SAME_PER_SEED = {
    "run.fingerprints.init_weights": "initial weights",
    "run.fingerprints.data_order": "orders of the data",
}
"""Provenance that its runs with the same seeds and batch size should share."""
SAME_AT_BEST = {
    "training.training_params.dtype": "number formats",
    "derived.global_batch_size": "batch sizes",
    "training.training_params.max_grad_norm": "clipping thresholds",
    "lr_scheduler.name": "schedules",
}
"""Settings beside the optimizer that the best trials should share, or a reader must know."""
BATCH = "derived.global_batch_size"
ESSENTIAL = ("run.fingerprints.data", "run.fingerprints.eval")
"""Of ``SAME``, what two sides must share: a loss on other tokens is another quantity."""


class UnlikeError(ValueError):
    """Two sides that cannot be compared; ends a process with 65."""

    exit_code = ExitCode.DATA


def warnings(runs: pd.DataFrame) -> list[str]:
    """Reasons to doubt a comparison of ``runs``, a sentence each, the gravest kind first.

    Args:
        runs: Rows of ``Runs.runs``, of one workload.
    """
    best = records(best_trials(trials(runs)))
    found = [*_unlike(runs), *_unlike_optimizers(runs), *_unlike_starts(runs), *_dirty(runs)]
    found += [*_unlike_settings(runs, best), *_untuned(best), *tuning_doubts(runs, compared=())]
    if best and all(row["optimizer"] != BASELINE for row in best):
        found.append(f"No run of {BASELINE} has ended, so there is no baseline to compare with.")
    return [*found, *_lost(runs)]


def obstacles(a: pd.DataFrame, b: pd.DataFrame, *, compared: Collection[str]) -> list[str]:
    """Reasons why two sides cannot be compared at all, a sentence each.

    Args:
        a, b: Rows of ``Runs.runs``.
        compared: Columns in which they are meant to differ.
    """
    import pandas as pd

    both = pd.concat([a, b])
    keys = [key for key in map(str, both) if below(key, WORKLOAD)]
    several = [
        f"{name} has runs of several workloads. Add one of these conditions to it: {ways}."
        for name, side in (("A", a), ("B", b))
        if (ways := "; ".join(_conditions(side, keys)))
    ]
    if several:
        return several  # what else there is to say depends on the choice
    unequal = _unequal(a, b, keys)
    found = [
        f"{key} is {_listed(a, key)} and {_listed(b, key)}."
        for key in unequal
        if key not in compared
    ]
    found += [
        f"The runs have different {SAME[key]}: {_listed(a, key)} and {_listed(b, key)}."
        for key in ESSENTIAL
        if (one := _known(a, key)) and (other := _known(b, key)) and one != other
    ]
    # Another model starts from other weights, and another context length reads in another order.
    return [*found, *([] if unequal else _unlike_starts(both))]


def _conditions(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """For each workload the shortest condition that only its runs fulfil; none for a single one."""
    varied = [key for key in keys if len(_texts(runs, key)) > 1]
    rows = Counter(zip(*(runs[key].map(shown) for key in varied), strict=True))
    found = []
    for mine, count in rows.items():
        others = [other for other in rows if other != mine]
        chosen = next(
            places
            for size in range(1, len(varied) + 1)
            for places in combinations(range(len(varied)), size)
            if all(any(other[place] != mine[place] for place in places) for other in others)
        )
        condition = ",".join(f"{varied[place]}={mine[place]}" for place in chosen)
        found.append(f"{condition} ({count} run{'s' * (count != 1)})")
    return found


def doubts(
    runs: pd.DataFrame, best: list[dict[str, Any]], *, compared: Collection[str]
) -> list[str]:
    """Reasons to doubt a comparison of two sides, a sentence each.

    Args:
        runs: Rows of ``Runs.runs`` of both sides, with the side's name as ``optimizer``.
        best: The best trial of each, as ``best_trials`` gives it.
        compared: Columns in which they are meant to differ; the optimizer's always are.
    """
    a, b = (
        runs[(runs["trial"] == row["trial"]) & (runs["optimizer"] == row["optimizer"])]
        for row in best
    )
    meant = (*WORKLOAD, "optimizer", *SEEDS, *compared)
    keys = [key for key in map(str, runs) if below(key, TRIAL) and not below(key, meant)]
    found = [
        f"The best trials differ in {key}: {_listed(a, key)} and {_listed(b, key)}."
        for key in _unequal(a, b, keys)
    ]
    if any(ABSENT in _texts(runs, key) for key in ESSENTIAL):
        found.append("Not all runs tell what they were trained and evaluated on.")
    found += [*_unlike(runs), *_unlike_optimizers(runs), *_dirty(runs), *_untuned(best)]
    return [*found, *tuning_doubts(runs, compared=compared), *_lost(runs)]


def _unequal(a: pd.DataFrame, b: pd.DataFrame, keys: Collection[str]) -> list[str]:
    return [key for key in keys if _texts(a, key) != _texts(b, key)]


def _texts(runs: pd.DataFrame, key: str) -> list[str]:
    return sorted(set(map(shown, runs[key]))) if key in runs else [ABSENT]


def _known(runs: pd.DataFrame, key: str) -> list[str]:
    return [text for text in _texts(runs, key) if text != ABSENT]


def _listed(runs: pd.DataFrame, key: str) -> str:
    return " or ".join(_texts(runs, key))


def _unlike(runs: pd.DataFrame) -> list[str]:
    found = []
    for column, what in SAME.items():
        if column in runs and runs[column].nunique() > 1:
            found.append(f"The runs have different {what}: {_counted(runs[column])}.")
    return found


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{v} ({n} runs)" for v, n in values.value_counts().items())


def _unlike_optimizers(runs: pd.DataFrame) -> list[str]:
    columns = [column for column in SAME_PER_OPTIMIZER if column in runs]
    return [
        f"Runs of {name} have different {SAME_PER_OPTIMIZER[column]}: {_counted(mine[column])}."
        for column in columns
        for name, mine in runs.groupby("optimizer.optimizer_params.name")
        if mine[column].nunique() > 1
    ]


def _unlike_starts(runs: pd.DataFrame) -> list[str]:
    batch = [runs[BATCH]] if BATCH in runs else []
    groups = runs.groupby([seeds_of(runs), *batch], dropna=False, sort=False)
    return [
        f"Runs with the same seed have different {what}."
        for column, what in SAME_PER_SEED.items()
        if column in runs and (groups[column].nunique() > 1).any()
    ]


def _dirty(runs: pd.DataFrame) -> list[str]:
    count = runs["run.git.dirty"].eq(True).sum() if "run.git.dirty" in runs else 0
    return [f"{count} of {len(runs)} runs were made by code with uncommitted changes."] * bool(
        count > 0
    )


def _unlike_settings(runs: pd.DataFrame, best: list[dict[str, Any]]) -> list[str]:
    found = []
    for column, what in SAME_AT_BEST.items():
        if column not in runs:
            continue
        values = {
            row["optimizer"]: runs.loc[runs["trial"] == row["trial"], column].iloc[0]
            for row in best
        }
        if len({str(value) for value in values.values()}) > 1:
            listed = ", ".join(
                f"{optimizer} {_shown(value)}" for optimizer, value in values.items()
            )
            found.append(f"The best trials have different {what}: {listed}.")
    return found


def _shown(value: Any) -> str:
    return "null" if value != value else str(value)


def _untuned(best: list[dict[str, Any]]) -> list[str]:
    found = [
        f"{row['optimizer']} is not tuned: its best learning rate {row['lr']:g} is the "
        f"{row['edge']} of those tried. Extend the grid beyond it."
        for row in best
        if row["edge"]
    ]
    found += [
        f"{row['optimizer']}: another trial may be the best: {row['caveat']}."
        for row in best
        if row["caveat"]
    ]
    for row in best:
        count = len(row["rates"])
        if count < FEWEST_RATES:
            rates = f"{count} learning rate{'s were' if count != 1 else ' was'} tried"
            others = " with the other settings of its best trial" * (row["trials"] > count)
            found.append(
                f"{row['optimizer']} is not tuned: {rates}{others};"
                f" an optimum takes at least {FEWEST_RATES}."
            )
        if row["unfinished"]:
            found.append(
                f"{row['unfinished']} run(s) of the best trial of {row['optimizer']} failed, have"
                " not ended or have no validation loss."
            )
    for key, what in (("trials", "trials"), ("n", "seeds at their best trial")):
        if len({row[key] for row in best}) > 1:
            counts = ", ".join(f"{row['optimizer']} {row[key]}" for row in best)
            found.append(f"The optimizers had different numbers of {what}: {counts}.")
    lone = [row["optimizer"] for row in best if row["n"] == 1]
    if lone:
        found.append(f"One seed has no spread: nothing is known of {', '.join(lone)} beyond it.")
    return found


def _lost(runs: pd.DataFrame) -> list[str]:
    found = []
    diverged = runs[runs["state"] == "diverged"].groupby(["optimizer", "lr"], dropna=False)
    if len(diverged):
        counts = records(diverged.size().reset_index(name="n"))
        listed = ", ".join(f"{c['optimizer']} at lr {brief(c['lr'])} ({c['n']})" for c in counts)
        found.append(f"Diverged, and counted as the worst result: {listed}.")
    untold = ((runs["state"] == "completed") & runs["final_val_loss"].isna()).sum()
    if untold:
        found.append(f"Completed without a validation loss, and not counted: {untold} run(s).")
    failed = runs.loc[runs["state"] == "failed", "reason"].replace("", "no reason is told")
    found += [
        f"{n} run(s) failed and are not counted: {why}." for why, n in failed.value_counts().items()
    ]
    ended = runs["state"].isin(["completed", "diverged", "failed"])
    unfinished = runs.loc[~ended, "state"].value_counts()
    if len(unfinished):
        listed = ", ".join(f"{n} {state}" for state, n in unfinished.items())
        found.append(f"Not finished, and not counted: {listed}.")
    return found
