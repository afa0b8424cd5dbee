"""What a reader must know before believing a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptopt.results.load import records
from gptopt.results.read import SEEDS
from gptopt.results.stats import BASELINE, best_trials, trials

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
SEEDED = (*SEEDS, "derived.global_batch_size")


def warnings(runs: pd.DataFrame) -> list[str]:
    """Reasons to doubt a comparison of ``runs``, a sentence each, the gravest kind first.

    Args:
        runs: Rows of ``Runs.runs``, of one workload.
    """
    best = records(best_trials(trials(runs)))
    return [*_unlike(runs), *_unlike_settings(runs, best), *_untuned(best), *_lost(runs)]


def _unlike(runs: pd.DataFrame) -> list[str]:
    found = []
    for column, what in SAME.items():
        if column in runs and runs[column].nunique() > 1:
            counts = ", ".join(f"{v} ({n} runs)" for v, n in runs[column].value_counts().items())
            found.append(f"The runs have different {what}: {counts}.")
    seeded = [column for column in SEEDED if column in runs]
    for column, what in SAME_PER_SEED.items():
        if column in runs and (runs.groupby(seeded, dropna=False)[column].nunique() > 1).any():
            found.append(f"Runs with the same seed have different {what}.")
    if "run.git.dirty" in runs and (dirty := runs["run.git.dirty"].eq(True).sum()):
        found.append(f"{dirty} of {len(runs)} runs were made by code with uncommitted changes.")
    return found


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
            listed = ", ".join(f"{optimizer} {value}" for optimizer, value in values.items())
            found.append(f"The best trials have different {what}: {listed}.")
    return found


def _untuned(best: list[dict[str, Any]]) -> list[str]:
    found = [
        f"{row['optimizer']} is not tuned: its best learning rate {row['lr']:g} is the "
        f"{row['edge']} of those tried. Extend the grid beyond it."
        for row in best
        if row["edge"]
    ]
    for row in best:
        if row["rates"] < FEWEST_RATES:
            found.append(
                f"{row['optimizer']} is not tuned: {row['rates']} learning rate(s) were tried;"
                f" an optimum takes at least {FEWEST_RATES}."
            )
        if row["unfinished"]:
            found.append(
                f"{row['unfinished']} run(s) of the best trial of {row['optimizer']} failed or"
                " have not ended."
            )
    for key, what in (("trials", "trials"), ("n", "seeds at their best trial")):
        if len({row[key] for row in best}) > 1:
            counts = ", ".join(f"{row['optimizer']} {row[key]}" for row in best)
            found.append(f"The optimizers had different numbers of {what}: {counts}.")
    lone = [row["optimizer"] for row in best if row["n"] == 1]
    if lone:
        found.append(f"One seed has no spread: nothing is known of {', '.join(lone)} beyond it.")
    if best and all(row["optimizer"] != BASELINE for row in best):
        found.append(f"No run of {BASELINE} has ended, so there is no baseline to compare with.")
    return found


def _lost(runs: pd.DataFrame) -> list[str]:
    found = []
    diverged = runs[runs["state"] == "diverged"].groupby(["optimizer", "lr"], dropna=False)
    if len(diverged):
        counts = records(diverged.size().reset_index(name="n"))
        listed = ", ".join(f"{c['optimizer']} at lr {c['lr']:g} ({c['n']})" for c in counts)
        found.append(f"Diverged, and counted as the worst result: {listed}.")
    failed = runs.loc[runs["state"] == "failed", "reason"].value_counts()
    found += [f"{n} run(s) failed and are not counted: {why}." for why, n in failed.items()]
    ended = runs["state"].isin(["completed", "diverged", "failed"])
    unfinished = runs.loc[~ended, "state"].value_counts()
    if len(unfinished):
        listed = ", ".join(f"{n} {state}" for state, n in unfinished.items())
        found.append(f"Not finished, and not counted: {listed}.")
    return found
