"""Diagnostics of every layer, as ``logging_params.diagnostics_interval`` has them logged."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from gptopt.results.load import Runs, records
from gptopt.results.stats import best_trials, trials
from gptopt.results.style import STYLE, Plot, look, new_axes, styled, whole_steps

if TYPE_CHECKING:
    import pandas as pd

SUMMARIES = ("min", "median", "max")
COLUMNS = 3
MOST_TICKS = 12
STEPS_TOLD = 4
UNTOLD = "#999999"


def measures(runs: Runs) -> list[str]:
    """What was measured, by the last part of its name: ``update_rms``, ``step_size``, …"""
    return sorted({str(name).rpartition("/")[2] for name in runs.diagnostics["name"].unique()})


@styled
def layer_traces(runs: Runs, *, measure: str) -> Plot:
    """One measure of every layer against the step, a panel per optimizer.

    Args:
        runs: Of one workload.
        measure: One of ``measures(runs)``.

    Returns:
        Data: optimizer, run_id, name (of the parameter, or the rule where it is one number for
        all), depth (number of the block, NaN outside), step, value; of one run per optimizer.
    """
    import matplotlib

    data = _traces(runs, measure)
    optimizers = list(dict.fromkeys(data["optimizer"]))
    rows = max(1, math.ceil(len(optimizers) / COLUMNS))
    figure = new_axes("", "", height=0.5 + 1.5 * rows)[0]
    figure.clear()
    width = min(COLUMNS, max(1, len(optimizers)))
    panels = figure.subplots(rows, width, sharex=True, sharey=True, squeeze=False)
    depths = data["depth"].dropna()
    shades = matplotlib.colormaps["viridis"]
    scale = matplotlib.colors.Normalize(0, max(depths.max(), 1) if len(depths) else 1)
    for optimizer, panel in zip(optimizers, panels.flat, strict=False):
        for name, line in data[data["optimizer"] == optimizer].groupby("name", sort=False):
            depth = line["depth"].iloc[0]
            colour = UNTOLD if math.isnan(depth) else shades(scale(depth))
            if depths.empty:  # one number for all
                colour = look(optimizer).colour
            panel.plot(line["step"], line["value"], color=colour, lw=0.8, gid=f"{optimizer} {name}")
        panel.set_title(optimizer, size=STYLE["font.size"])
    for panel in panels.flat[len(optimizers) :]:
        panel.set_visible(False)
    for panel in panels.flat[: len(optimizers)][-width:]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    if len(data) and (data["value"] > 0).all() and data["value"].max() > 20 * data["value"].min():
        panels[0, 0].set_yscale("log")
    whole_steps(panels[0, 0], most=STEPS_TOLD)
    figure.supxlabel("optimizer steps", size=STYLE["font.size"])
    figure.supylabel(measure, size=STYLE["font.size"])
    if depths.nunique() > 1:
        colours = matplotlib.cm.ScalarMappable(scale, shades)
        ticks = sorted(depths.unique()) if depths.nunique() <= MOST_TICKS else None
        figure.colorbar(colours, ax=panels, label="block", aspect=30, ticks=ticks)
    return Plot(
        figure,
        data,
        f"{measure} of every parameter that has it, in one run of each optimizer's best trial; "
        "the colour is the number of its block, grey what belongs to none.",
    )


def _traces(runs: Runs, measure: str) -> pd.DataFrame:
    rows = runs.diagnostics
    wanted = {
        name: home
        for name in map(str, rows["name"].unique())
        for home, _, last in [name.rpartition("/")]
        if last == measure and home not in SUMMARIES
    }
    rows = rows[rows["name"].isin(wanted)]
    best = best_trials(trials(runs.runs))
    order = {row["trial"]: place for place, row in enumerate(records(best))}
    keys = runs.runs[["run_id", "optimizer", "trial", "seed"]]
    keys = keys[keys["run_id"].isin(rows["run_id"]) & keys["trial"].isin(order)]
    keys = keys.assign(order=keys["trial"].map(order)).sort_values(["order", "seed"])
    keys = keys.drop_duplicates("optimizer")[["run_id", "optimizer", "order"]]
    data = rows.merge(keys, on="run_id").sort_values(["order", "step"], kind="stable")
    names = data["name"].astype(str).map(wanted)
    return data.assign(name=names, depth=names.map(_depth).astype(float))[
        ["optimizer", "run_id", "name", "depth", "step", "value"]
    ]


def _depth(name: str) -> float:
    """The number of the block in the name of a parameter, counted from 0; NaN without one."""
    found = re.search(r"(?:^|\.)(\d+)\.", name)
    return float(found[1]) if found else math.nan
