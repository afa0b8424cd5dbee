"""Loss against steps, tokens, time and FLOPs, of one workload."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from gptopt.results.load import Runs, records
from gptopt.results.select import brief
from gptopt.results.stats import best_trials, trials
from gptopt.results.style import (
    Plot,
    add_legend,
    draw_floor,
    floor_of,
    look,
    lowest,
    new_axes,
    set_limits,
    styled,
    without_outliers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

XAxis = Literal["step", "tokens", "seconds", "flops"]
Loss = Literal["train_loss", "val_loss"]
X_LABELS = {
    "step": "optimizer steps",
    "tokens": "training tokens",
    "seconds": "training time (s)",
    "flops": "model FLOPs",
}
Y_LABELS = {
    "train_loss": "training loss (nats per token)",
    "val_loss": "validation loss (nats per token)",
}
SETTLED = 0.1
"""Share of a run after which its loss has to be inside the axes."""


@styled
def loss_curves(runs: Runs, *, x: XAxis, loss: Loss, smooth: int = 1) -> Plot:
    """Every run as a thin line, the mean of each optimizer's best trial as a bold one.

    Args:
        runs: Of one workload.
        x: What the loss is drawn against. FLOPs are tokens x ``flops_per_token``.
        loss: Column of the vertical axis.
        smooth: Each point is the mean of this many logged rows of its run, up to it.

    Returns:
        Data: the points; ``best`` marks those of each optimizer's best trial.
    """
    best = best_trials(trials(runs.runs))
    data = _points(runs, best, x, loss, smooth)
    figure, axes = new_axes(X_LABELS[x], Y_LABELS[loss])
    for run_id, run in data.groupby("run_id", sort=False, observed=True):
        colour = look(run["optimizer"].iloc[0]).colour
        axes.plot(run[x], run[loss], color=colour, lw=0.6, alpha=0.4, gid=str(run_id))
    means = _draw_means(axes, data, best, x, loss)
    last = data.drop_duplicates("run_id", keep="last")
    right = max([without_outliers(last[x]), *(mean["x"].max() for mean in means)])
    top = max([without_outliers(last[loss]), *_settled(means)])
    floor = floor_of(runs.runs)
    draw_floor(axes, floor)
    set_limits(axes, (0, right), (lowest([*data[loss], floor]), top))
    for end in records(last[last["state"] == "diverged"]):
        place = min(end[x], right), min(end[loss], axes.get_ylim()[1])
        axes.plot(*place, "x", color=look(end["optimizer"]).colour, ms=4.5, clip_on=False)
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        f"{_what(x, loss, smooth)} Thin: every run, at any settings; a cross ends a diverged one. "
        "Bold: mean over the seeds of each optimizer's best trial, at steps that all of them "
        f"logged; band: lowest to highest seed. What is far above the rest is cut off.{_model(x)}",
    )


@styled
def tuned_curves(runs: Runs, *, x: XAxis, loss: Loss, smooth: int = 1) -> Plot:
    """The best trial of each optimizer: its mean over seeds and their range.

    Args:
        runs, x, loss, smooth: As ``loss_curves`` takes them.

    Returns:
        Data: optimizer, lr, step, x, loss, low, high, n (seeds), best optimizer first.
    """
    import pandas as pd

    best = best_trials(trials(runs.runs))
    points = _points(runs, best, x, loss, smooth)
    figure, axes = new_axes(X_LABELS[x], Y_LABELS[loss])
    means = _draw_means(axes, points[points["best"]], best, x, loss)
    columns = ["optimizer", "lr", "step", "x", "loss", "low", "high", "n"]
    data = pd.concat([pd.DataFrame(columns=columns), *means]) if means else points[:0]
    floor = floor_of(runs.runs)
    draw_floor(axes, floor)
    bottom = lowest([*(mean["low"].min() for mean in means), floor])
    right = max((mean["x"].max() for mean in means), default=1.0)
    set_limits(axes, (0, right), (bottom, max(_settled(means), default=1.0)))
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        f"{_what(x, loss, smooth)} Best trial of each optimizer, in the order of the final "
        f"validation loss: mean over its seeds; band: lowest to highest seed.{_model(x)}",
    )


def _points(runs: Runs, best: pd.DataFrame, x: XAxis, loss: Loss, smooth: int) -> pd.DataFrame:
    """The logged rows that have both, with what a figure needs to know of their runs."""
    known = ["run_id", "optimizer", "lr", "seed", "state", "trial", "flops_per_token"]
    keys = runs.runs[known].assign(best=runs.runs["trial"].isin(best["trial"]))
    rows = runs.metrics[["run_id", "step", "tokens", "seconds", loss]]
    data = rows.dropna(subset=[loss]).merge(keys, on="run_id")
    if x == "flops":
        data["flops"] = data["tokens"] * data["flops_per_token"]
    data = data.dropna(subset=[x])
    if smooth > 1:
        by_run = data.groupby("run_id", observed=True)[loss]
        data[loss] = by_run.transform(lambda values: values.rolling(smooth, min_periods=1).mean())
    return data


def _draw_means(
    axes: Axes, data: pd.DataFrame, best: pd.DataFrame, x: str, loss: str
) -> list[pd.DataFrame]:
    """Draws the best trials; returns the mean of each, without those that have none."""
    means = []
    for row in records(best):
        trial = data[(data["trial"] == row["trial"]) & (data["state"] == "completed")]
        mean = _mean_over_seeds(trial, x, loss)
        if mean.empty:
            continue
        style = look(row["optimizer"])
        axes.fill_between(mean["x"], mean["low"], mean["high"], color=style.colour, alpha=0.2, lw=0)
        axes.plot(
            mean["x"],
            mean["loss"],
            color=style.colour,
            ls=style.dash,
            lw=1.6,
            gid=f"mean {row['optimizer']}",
            label=f"{row['optimizer']}, lr {brief(row['lr'])}",
        )
        means.append(mean.reset_index().assign(optimizer=row["optimizer"], lr=row["lr"]))
    return means


def _mean_over_seeds(trial: pd.DataFrame, x: str, loss: str) -> pd.DataFrame:
    """x and loss averaged over the runs, and their range, at each step all of them logged."""
    curve = trial.groupby("step").agg(
        x=(x, "mean"), loss=(loss, "mean"), low=(loss, "min"), high=(loss, "max"), n=(loss, "size")
    )
    return curve[curve["n"] == trial["run_id"].nunique()]


def _settled(means: list[pd.DataFrame]) -> list[float]:
    """The highest finite loss of each mean once it has settled."""
    settled = [mean.loc[mean["x"] >= SETTLED * mean["x"].max(), "loss"] for mean in means]
    finite = [losses[losses < math.inf] for losses in settled]
    return [losses.max() for losses in finite if len(losses)]


def _what(x: XAxis, loss: Loss, smooth: int) -> str:
    smoothed = f"each point the mean of {smooth} logged rows" if smooth > 1 else "not smoothed"
    names = [Y_LABELS[loss].split(" (")[0].capitalize(), X_LABELS[x].split(" (")[0]]
    return f"{' against '.join(names)}, {smoothed}."


def _model(x: XAxis) -> str:
    if x != "flops":
        return ""
    return " FLOPs are 6 x parameters without embeddings x tokens; the optimizer's are not in it."
