"""What was tuned with one optimizer and left alone with another."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gptopt.results.columns import below
from gptopt.results.runs import records, settings_of
from gptopt.results.select import ABSENT, shown
from gptopt.results.stats.grids import goes_along

if TYPE_CHECKING:
    import pandas as pd

RATE = "optimizer.optimizer_params.lr"
NAME = "optimizer.optimizer_params.name"


def setting_words(settings: dict[str, Any]) -> str:
    """Settings in short: ``lr=0.02, aux.lr=0.003``."""
    own = {key: value for key, value in settings.items() if key != NAME}
    return ", ".join(f"{key.split('_params.')[-1]}={shown(value)}" for key, value in own.items())


def tuning_doubts(runs: pd.DataFrame, *, compared: Collection[str]) -> list[str]:
    """Settings that were varied with some optimizers and kept with others, a sentence each.

    Args:
        runs: Rows of ``Runs.runs``; of one workload for each optimizer.
        compared: Columns in which they are meant to differ.
    """
    settings = settings_of(runs)
    rates = {row["trial"]: row["lr"] for row in records(runs[["trial", "lr"]])}
    tried: dict[str, list[dict[str, Any]]] = {name: [] for name in runs["optimizer"].unique()}
    for (_, optimizer, trial), values in settings.items():
        tried[optimizer].append({"lr": rates[trial], "settings": values})
    varied = {key for one in settings.values() for key in one if not below(key, (RATE, NAME))}
    found = []
    for key in sorted(varied.difference(compared)):
        words = {name: _words(key, mine) for name, mine in tried.items()}
        kept = runs[[key, "optimizer"]].drop_duplicates("optimizer").set_index("optimizer")[key]
        if not all(words.values()):
            lacking = [name for name in words if shown(kept[name]) == ABSENT and not words[name]]
            listed = [
                f"{name} {text or f'kept {shown(kept[name])}'}"
                for name, text in words.items()
                if name not in lacking
            ]
            listed += [f"{lacking[0]} has none"] if len(lacking) == 1 else []
            listed += ["the others have none"] if len(lacking) > 1 else []
            found.append(f"Tuning differs in {key}: {', '.join(listed)}.")
    return found


def _words(key: str, tried: list[dict[str, Any]]) -> str:
    """How a setting was varied; nothing where it was not."""
    if key not in tried[0]["settings"]:
        return ""
    values = {shown(one["settings"][key]) for one in tried}
    along = " along with lr" if goes_along(key, tried) else ""
    return f"tried {len(values)} values{along}"
