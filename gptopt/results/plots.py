"""Figures of one workload. Each function returns the figure, its numbers and a caption.

The loss is in nats per token throughout; ``style`` says how figures look.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from gptopt.results.load import Runs, records
from gptopt.results.stats import best_trials, outcome, trials
from gptopt.results.style import (
    Plot,
    add_legend,
    look,
    lowest,
    new_axes,
    on_top,
    scale_rates,
    set_limits,
    styled,
    without_outliers,
)

if TYPE_CHECKING:
    import pandas as pd

XAxis = Literal["step", "tokens", "seconds"]
Loss = Literal["train_loss", "val_loss"]
X_LABELS = {"step": "optimizer steps", "tokens": "training tokens", "seconds": "training time (s)"}
Y_LABELS = {
    "train_loss": "training loss (nats per token)",
    "val_loss": "validation loss (nats per token)",
}
FINAL = "final validation loss (nats per token)"


@styled
def loss_curves(runs: Runs, *, x: XAxis, loss: Loss) -> Plot:
    """Every run as a thin line, the mean of each optimizer's best trial as a bold one.

    Args:
        runs: Of one workload.
        x: Column of the horizontal axis.
        loss: Column of the vertical axis.

    Returns:
        Data: the logged rows; ``best`` marks those of each optimizer's best trial.
    """
    best = best_trials(trials(runs.runs))
    keys = runs.runs[["run_id", "optimizer", "lr", "seed", "state", "trial"]]
    keys = keys.assign(best=keys["trial"].isin(best["trial"]))
    rows = runs.metrics[["run_id", "step", "tokens", "seconds", loss]].dropna(subset=[x, loss])
    data = rows.merge(keys, on="run_id")

    figure, axes = new_axes(X_LABELS[x], Y_LABELS[loss])
    for run_id, run in data.groupby("run_id", sort=False):
        colour = look(run["optimizer"].iloc[0]).colour
        axes.plot(run[x], run[loss], color=colour, lw=0.6, alpha=0.4, gid=str(run_id))
    last = data.drop_duplicates("run_id", keep="last")
    right, top = without_outliers(last[x]), without_outliers(last[loss])
    for row in records(best):
        trial = data[(data["trial"] == row["trial"]) & (data["state"] == "completed")]
        mean = _mean_over_seeds(trial, x, loss)
        style = look(row["optimizer"])
        axes.fill_between(mean["x"], mean["low"], mean["high"], color=style.colour, alpha=0.2, lw=0)
        axes.plot(
            mean["x"],
            mean["loss"],
            color=style.colour,
            ls=style.dash,
            lw=1.8,
            gid=f"mean {row['optimizer']}",
            label=f"{row['optimizer']}, lr {row['lr']:g}",
        )
        right = max([right, *mean["x"]])
        top = max([top, *mean.loc[mean["x"] >= 0.1 * mean["x"].max(), "loss"]])
    set_limits(axes, (0, right), (lowest(data[loss]), top))
    for end in records(last[last["state"] == "diverged"]):
        place = min(end[x], right), min(end[loss], axes.get_ylim()[1])
        axes.plot(*place, "x", color=look(end["optimizer"]).colour, ms=4.5, clip_on=False)
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        f"{Y_LABELS[loss].split(' (')[0].capitalize()} against {X_LABELS[x].split(' (')[0]}, not "
        "smoothed. Thin: every run, at any learning rate; a cross ends a diverged one. Bold: mean "
        "over the seeds of each optimizer's best trial, at steps that all of them logged; band: "
        "lowest to highest seed. What is far above the rest is cut off.",
    )


@styled
def learning_rates(runs: Runs) -> Plot:
    """Final validation loss against the learning rate, a marker per run.

    Args:
        runs: Of one workload.

    Returns:
        Data: a row per run that ended: optimizer, lr, seed, loss (infinite: diverged).
    """
    tried = trials(runs.runs)
    best = {row["optimizer"]: row for row in records(best_trials(tried))}
    data = _outcomes(runs)
    top = without_outliers(data["loss"])
    figure, axes = new_axes("learning rate", FINAL)
    axes.set_xscale("log")
    for optimizer in sorted(set(data["optimizer"])):
        mine = data[data["optimizer"] == optimizer]
        style = look(optimizer)
        runs_shown: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ms": 4}
        axes.plot(mine["lr"], mine["loss"], ls="", mew=0, alpha=0.7, gid=optimizer, **runs_shown)
        mean = tried[tried["optimizer"] == optimizer].groupby("lr")["mean"].min()
        mean = mean.where(mean < math.inf)
        axes.plot(mean.index, mean, c=style.colour, ls=style.dash, lw=1, gid=f"mean {optimizer}")
        axes.plot([], [], ls=style.dash, label=optimizer, **runs_shown)
        off = mine[(mine["loss"] > top) & (mine["loss"] < math.inf)]
        on_top(axes, off["lr"], 0.88, {"mfc": "none", "mec": style.colour, "marker": "^"})
        crossed = mine[mine["loss"] == math.inf]
        on_top(axes, crossed["lr"], 0.96, {"color": style.colour, "marker": "x"})
        row = best[optimizer]
        if row["mean"] < math.inf:
            axes.plot(row["lr"], row["mean"], "o", ms=10, mfc="none", mec=style.colour)
        if row["edge"]:
            inwards = "left" if row["edge"] == "lowest" else "right"
            axes.annotate(
                f"{row['edge']} tried",
                (row["lr"], row["mean"]),
                xytext=(-5 if inwards == "left" else 5, -8),
                textcoords="offset points",
                ha=inwards,
                va="top",
                color=style.colour,
                size=7,
            )
    lost = (data["loss"] == math.inf).any()
    higher = ((data["loss"] > top) & (data["loss"] < math.inf)).any()
    set_limits(axes, None, (lowest(data["loss"]), top), 0.1, 0.2 if lost or higher else 0.06)
    for height, text, present in ((0.96, "diverged", lost), (0.88, "higher", higher)):
        if present:
            axes.text(1.01, height, text, transform=axes.transAxes, va="center", size=7.5)
    scale_rates(axes, data["lr"])
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        "Final validation loss against the learning rate. A marker per run; lines go through the "
        "mean over seeds of the best trial at each learning rate; a ring marks the best mean, "
        "and the word below it says when that is the lowest or highest learning rate tried. "
        "Crosses are diverged runs, triangles on top lie above the axis.",
    )


@styled
def best_per_optimizer(runs: Runs) -> Plot:
    """Final validation loss of each optimizer's best trial: seeds, mean, interval.

    Args:
        runs: Of one workload.

    Returns:
        Data: the rows of ``stats.best_trials`` that have a finite mean, best first.
    """
    best = best_trials(trials(runs.runs))
    data = best[best["mean"] < math.inf]
    figure, axes = new_axes(FINAL, "", height=0.8 + 0.3 * len(data))
    for place, row in enumerate(records(data)):
        style = look(row["optimizer"])
        axes.plot([row["low"], row["high"]], [place, place], color=style.colour, lw=1.2)
        axes.plot(row["losses"], [place] * row["n"], "o", ms=4, color=style.colour, mfc="white")
        axes.plot(row["mean"], place, "|", ms=13, mew=2, color=style.colour, gid=row["optimizer"])
    seeds = data["losses"].explode().astype(float)
    names = [f"{r['optimizer']}, lr {r['lr']:g}" for r in records(data)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    if len(seeds):
        margin = 0.15 * (seeds.max() - seeds.min()) or 0.01
        axes.set_xlim(seeds.min() - margin, seeds.max() + margin)
    return Plot(
        figure,
        data,
        "Final validation loss of the best trial of each optimizer. Rings: seeds; bar: their "
        "mean; line: 95 % interval of the mean by Student's t, cut at the axis.",
    )


def _outcomes(runs: Runs) -> pd.DataFrame:
    keys = runs.runs[["run_id", "optimizer", "lr", "seed", "state"]]
    return keys.assign(loss=outcome(runs.runs)).dropna(subset=["lr", "loss"])


def _mean_over_seeds(trial: pd.DataFrame, x: str, loss: str) -> pd.DataFrame:
    """x and loss averaged over the runs, and their range, at each step all of them logged."""
    curve = trial.groupby("step").agg(
        x=(x, "mean"), loss=(loss, "mean"), low=(loss, "min"), high=(loss, "max"), n=(loss, "size")
    )
    return curve[curve["n"] == trial["run_id"].nunique()]
