"""What tuning brings, what a loss costs, and what better optimizers save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gptopt.results.load import Runs, records
from gptopt.results.stats import BASELINE, best_trials, outcome, trials
from gptopt.results.stats.fits import fit_power_law
from gptopt.results.stats.fits import speed_up as speed_up_of
from gptopt.results.stats.targets import R_MAX, Cost, median_interval, to_target
from gptopt.results.stats.targets import performance_profile as profile
from gptopt.results.stats.tuning import expected_best
from gptopt.results.style import (
    Plot,
    add_legend,
    look,
    lowest,
    new_axes,
    scale_axis,
    set_limits,
    styled,
    whole_steps,
    without_outliers,
)

if TYPE_CHECKING:
    import pandas as pd

COSTS = {"step": "optimizer steps", "tokens": "training tokens", "seconds": "training time"}
SAME_SERIES = ("model", "dataset", "derived.context_length")
"""Workloads that agree in these differ in their budget alone."""


@styled
def best_of_k(runs: Runs) -> Plot:
    """The expected lowest loss of k of the trials of each optimizer.

    Args:
        runs: Of one workload.

    Returns:
        Data: optimizer, k, loss.
    """
    import pandas as pd

    found = trials(runs.runs)
    found = found[found["n"] > 0]
    ceiling = _ceiling(runs.runs)
    parts = []
    figure, axes = new_axes("trials", "expected best loss (nats per token)")
    for optimizer, mine in found.groupby("optimizer"):
        losses = expected_best(mine["mean"].tolist(), ceiling=ceiling)
        k = range(1, len(losses) + 1)
        style = look(str(optimizer))
        shown = {"color": style.colour, "ls": style.dash, "marker": style.marker, "ms": 3}
        axes.plot(k, losses, lw=1.2, label=optimizer, gid=str(optimizer), **shown)
        parts.append(pd.DataFrame({"optimizer": optimizer, "k": k, "loss": losses}))
    data = pd.concat([pd.DataFrame(columns=["optimizer", "k", "loss"]), *parts])
    finite = found.loc[found["mean"] < math.inf, "mean"]
    top = without_outliers(finite if len(finite) else data["loss"])
    set_limits(axes, None, (lowest(data["loss"]), top))
    whole_steps(axes)
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        "Expected lowest mean final validation loss of k trials, drawn without replacement from "
        f"those that were run; a loss counts as {ceiling:.2f} at most. Compare optimizers at one "
        "k: beyond it, one of them was tuned more.",
    )


@styled
def performance_profile(found: Runs, *, cost: Cost = "step") -> Plot:
    """The share of workloads that each optimizer solves within a factor of the best cost.

    Solved is a workload by the best trial of an optimizer when the median of its seeds reaches
    what every seed of the baseline's best trial has reached at its end.

    Args:
        found: Of any number of workloads; those without a baseline are left out.
        cost: What is counted.

    Returns:
        Data: tau, then the share of each optimizer.
    """
    import numpy as np
    import pandas as pd

    costs = {}
    for title, part in found.workloads().items():
        best = best_trials(trials(part.runs))
        base = best.loc[best["optimizer"] == BASELINE, "losses"]
        target = max(base.iloc[0]) if len(base) else math.inf
        if not math.isfinite(target):
            continue
        reached = to_target(part.only(outcome(part.runs).notna()), target, cost=cost)
        costs[title] = {
            row["optimizer"]: median_interval(
                reached.loc[reached["trial"] == row["trial"], "reached"].tolist()
            ).value
            for row in records(best)
        }
    table = pd.DataFrame.from_dict(costs, orient="index").fillna(math.inf)
    within = np.linspace(1, R_MAX, 301).tolist()
    shares = profile(table, within) if len(table) else pd.DataFrame(index=within)
    figure, axes = new_axes("factor of the lowest cost", "share of workloads")
    for optimizer in shares.columns:
        style = look(optimizer)
        shown = {"color": style.colour, "ls": style.dash, "lw": 1.5, "ds": "steps-post"}
        axes.plot(within, shares[optimizer], label=optimizer, gid=optimizer, **shown)
    set_limits(axes, None, (0, 1))
    axes.set_xlim(1, R_MAX)
    add_legend(figure, axes)
    data = shares.rename_axis("tau").reset_index() if len(table) else pd.DataFrame()
    return Plot(
        figure,
        data,
        f"Performance profile over {len(table)} workload(s): the share that an optimizer solves "
        f"within a factor of the lowest cost, in {COSTS.get(cost, cost)}. Solved: the median seed "
        f"of its best trial reaches what every seed of {BASELINE}'s best trial has at its end. An "
        "optimizer that was not run on a workload has not solved it.",
    )


@styled
def speed_up(found: Runs) -> Plot:
    """How much more data the baseline would need for the loss of each optimizer, by budget.

    Source: Wen et al. (2025), "Fantastic pretraining optimizers and where to find them".

    Args:
        found: Runs of one model on one corpus with several numbers of training tokens; of
            several such series the first one that has enough counts.

    Returns:
        Data: optimizer, tokens, loss, speed_up; empty unless the baseline has a loss at three
        budgets that a power law describes.
    """
    import pandas as pd

    columns = ["optimizer", "tokens", "loss", "speed_up"]
    data = pd.DataFrame(columns=columns)
    known = [column for column in SAME_SERIES if column in found.runs]
    for _, series in found.runs.groupby(known, dropna=False):
        best = best_trials(trials(series))
        tokens = series.drop_duplicates("workload").set_index("workload")["total_tokens"]
        best = best.assign(tokens=best["workload"].map(tokens))
        best = best[best["mean"] < math.inf].rename(columns={"mean": "loss"})
        base = best[best["optimizer"] == BASELINE]
        try:
            law = fit_power_law(base["tokens"].tolist(), base["loss"].tolist())
        except ValueError:
            continue
        gains = [
            speed_up_of(law, row["tokens"], row["loss"]) if row["loss"] > law.floor else math.nan
            for row in records(best)
        ]
        data = best.assign(speed_up=gains)[columns].sort_values(["optimizer", "tokens"])
        break
    figure, axes = new_axes("training tokens", f"tokens {BASELINE} needs / tokens used")
    for optimizer, mine in data.groupby("optimizer"):
        style = look(str(optimizer))
        shown = {"color": style.colour, "ls": style.dash, "marker": style.marker, "ms": 4}
        axes.plot(mine["tokens"], mine["speed_up"], label=optimizer, gid=str(optimizer), **shown)
    axes.axhline(1, color="#777777", lw=0.9)
    scale_axis(axes, data["tokens"])
    add_legend(figure, axes)
    return Plot(
        figure,
        data.reset_index(drop=True),
        f"Speed-up over {BASELINE}: tokens that it would need for the same final validation loss, "
        "by a power law through its best trials at all budgets, over the tokens used. "
        f"{BASELINE}'s own points show how well the law fits. A loss below the floor of the law "
        "has no point.",
    )


def _ceiling(runs: pd.DataFrame) -> float:
    """The loss before training, ln(vocabulary); where that is unknown, the highest finite one."""
    column = "model.config.vocab_size"
    sizes = runs[column].dropna() if column in runs else runs["lr"][:0]
    if len(sizes):
        return math.log(float(sizes.max()))
    finals = runs["final_val_loss"]
    return float(finals[finals < math.inf].max())
