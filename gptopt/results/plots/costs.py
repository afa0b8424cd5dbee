"""What an optimizer costs, of one workload."""

from __future__ import annotations

import math
from typing import Any

from gptopt.results.clock import step_times
from gptopt.results.load import Runs, records
from gptopt.results.stats import best_trials, trials
from gptopt.results.style import Plot, add_legend, look, new_axes, styled


@styled
def optimizer_cost(runs: Runs) -> Plot:
    """Milliseconds of a step, and of the optimizer in it; bytes of its state, where logged.

    Args:
        runs: Of one workload.

    Returns:
        Data: optimizer, step_ms, optimizer_ms (medians over the logged rows of all its runs but
        the first of each, which pays for the warm-up), bytes_per_parameter; cheapest first.
    """
    keys = runs.runs[["run_id", "optimizer", "parameters"]]
    rows = runs.metrics.merge(keys, on="run_id")
    timed = rows.dropna(subset=["step_ms", "optimizer_ms"])
    timed = timed[timed["run_id"].duplicated()]
    data = timed.groupby("optimizer")[["step_ms", "optimizer_ms"]].median()
    size = (rows["optimizer_state_bytes"] / rows["parameters"]).groupby(rows["optimizer"]).max()
    data = data.join(size.rename("bytes_per_parameter"))
    data = data.sort_values("optimizer_ms").reset_index()
    columns = {"ms per step": "optimizer_ms", "bytes of state per parameter": "bytes_per_parameter"}
    shown = {label: column for label, column in columns.items() if data[column].notna().any()}
    figure = new_axes("", "", height=0.9 + 0.26 * len(data))[0]
    figure.clear()
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    places = range(len(data))
    colours = [look(optimizer).colour for optimizer in data["optimizer"]]
    for panel, (label, column) in zip(panels, shown.items(), strict=False):
        panel.barh(places, data[column], height=0.7, color=colours, gid=column)
        panel.set_xlabel(label)
        panel.grid(visible=False, axis="y")
    panels[0].barh(places, data["step_ms"], height=0.7, color=colours, alpha=0.25, zorder=0.9)
    panels[0].set_yticks(places, data["optimizer"])
    panels[0].set_ylim(max(len(data), 1) - 0.5, -0.5)
    return Plot(
        figure,
        data,
        "Milliseconds of a whole step (light) and of the optimizer's own work in it (full): "
        "medians over the logged rows of all runs. They hold for this model, batch and device, "
        "and for what else ran on it.",
    )


@styled
def cost_and_quality(runs: Runs) -> Plot:
    """Final validation loss of each optimizer's best trial against what its steps take undisturbed.

    Args:
        runs: Of one workload.

    Returns:
        Data: optimizer, lr, seconds (steps times the fastest quartile of the milliseconds of a
        step, over all runs that do the work of the best trial), mean, low, high; fastest first.
        Without optimizers whose best trial diverged or whose runs tell no time.
    """
    best = best_trials(trials(runs.runs))
    times = step_times(runs)
    quartile = times.groupby("work")["step_ms"].quantile(0.25)
    mine = runs.runs.set_index("run_id").loc[times.index]
    seconds = times["work"].map(quartile).astype(float) * mine["max_steps"] / 1e3
    by_trial = seconds.groupby(mine["trial"]).min()
    best = best.assign(seconds=best["trial"].map(dict(by_trial)).astype(float))
    known = best[(best["mean"] < math.inf) & best["seconds"].notna()]
    data = known[["optimizer", "lr", "seconds", "mean", "low", "high"]].sort_values("seconds")
    figure, axes = new_axes("training time (s)", "final validation loss (nats per token)")
    for row in records(data):
        style = look(row["optimizer"])
        axes.plot([row["seconds"]] * 2, [row["low"], row["high"]], color=style.colour, lw=1)
        marked: dict[str, Any] = {"marker": style.marker, "ms": 6, "ls": ""}
        name = row["optimizer"]
        axes.plot(row["seconds"], row["mean"], label=name, gid=name, c=style.colour, **marked)
    if len(data):
        axes.set_xlim(0, 1.05 * data["seconds"].max())
        low, high = data["mean"].min(), data["mean"].max()
        margin = 0.1 * (high - low) or 0.01
        axes.set_ylim(low - margin, high + margin)
    add_legend(figure, axes)
    return Plot(
        figure,
        data.reset_index(drop=True),
        "Final validation loss of each optimizer's best trial, mean over seeds, against its "
        "training time undisturbed: steps times the fastest quartile of the milliseconds of a "
        "step, over all runs that do the same work; line: 95 % interval. Lower left is better. "
        "An optimizer without a finite loss or a time has no point.",
    )
