"""Final loss against settings, of one workload."""

from __future__ import annotations

import math
from collections import Counter
from numbers import Real
from typing import TYPE_CHECKING, Any

from gptopt.results.load import Runs, records, swept
from gptopt.results.select import ABSENT, brief, column_of, shown
from gptopt.results.stats import best_trials, edge, outcome, trials
from gptopt.results.stats.significance import difference
from gptopt.results.style import (
    Plot,
    add_legend,
    draw_floor,
    floor_of,
    look,
    lowest,
    new_axes,
    on_top,
    scale_axis,
    set_limits,
    styled,
    without_outliers,
)
from gptopt.results.tuned import setting_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINAL = "final validation loss (nats per token)"
RATE = "optimizer.optimizer_params.lr"
MOST_LEVEL_TICKS = 7


@styled
def final_loss(runs: Runs, *, axis: str = RATE) -> Plot:
    """Final validation loss against one setting, a marker per run.

    Args:
        runs: Of one workload.
        axis: Column of a number, such as the weight decay; at each value the best trial counts,
            whatever else it was run with. Runs without it are left out; the caption tells how many.

    Returns:
        Data: a row per run that ended: run_id, optimizer, value, seed, loss (infinite: diverged).

    Raises:
        ValueError: There is no such column.
    """
    tried = _with_value(runs, axis)
    best = {row["optimizer"]: row for row in records(best_trials(tried))}
    data = _outcomes(runs, axis)
    top = without_outliers(data["loss"])
    figure, axes = new_axes(_name(axis), FINAL)
    higher_at, lost_at = Counter[float](), Counter[float]()
    for optimizer in sorted(set(data["optimizer"])):
        mine = data[data["optimizer"] == optimizer]
        style = look(optimizer)
        shown: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ms": 4}
        inside = mine[mine["loss"] <= top]
        axes.plot(inside["value"], inside["loss"], ls="", mew=0, alpha=0.7, gid=optimizer, **shown)
        mean = tried[tried["optimizer"] == optimizer].groupby("value")["mean"].min()
        mean = mean.where(mean < math.inf)
        axes.plot(mean.index, mean, c=style.colour, ls=style.dash, lw=1, gid=f"mean {optimizer}")
        axes.plot([], [], ls=style.dash, label=optimizer, **shown)
        off = mine[(mine["loss"] > top) & (mine["loss"] < math.inf)]
        on_top(
            axes, off["value"], 0.88, higher_at, {"mfc": "none", "mec": style.colour, "marker": "^"}
        )
        crossed = mine[mine["loss"] == math.inf]
        on_top(axes, crossed["value"], 0.96, lost_at, {"color": style.colour, "marker": "x"})
        row = best[optimizer]
        if row["mean"] < math.inf:
            axes.plot(row["value"], row["mean"], "o", ms=9, mfc="none", mec=style.colour)
            end = row["edge"] if axis == RATE else edge(mean.index, row["value"])
            _point_beyond(axes, end, row, style.colour)
    lost = (data["loss"] == math.inf).any()
    higher = ((data["loss"] > top) & (data["loss"] < math.inf)).any()
    floor = floor_of(runs.runs)
    draw_floor(axes, floor)
    bottom = lowest([*data["loss"], floor])
    set_limits(axes, None, (bottom, top), 0.1, 0.2 if lost or higher else 0.06)
    for height, text, present in ((0.96, "diverged", lost), (0.88, "higher", higher)):
        if present:
            axes.text(1.01, height, text, transform=axes.transAxes, va="center", size=7.5)
    scale_axis(axes, data["value"])
    add_legend(figure, axes)
    return Plot(
        figure,
        data,
        f"Final validation loss against {_name(axis)}. A marker per run; lines go through the "
        "mean over seeds of the best trial at each value; a ring marks the best mean, and an "
        "arrow at it says that it is the lowest or highest value tried, so that a better one "
        "may lie beyond. Crosses are diverged runs, triangles on top lie above the axis."
        + _left_out(runs, len(data)),
    )


@styled
def heat_map(runs: Runs, *, optimizer: str, x: str, y: str) -> Plot:
    """The mean final loss at each pair of two settings.

    Args:
        runs: Of one workload.
        optimizer: Whose.
        x, y: Columns of settings; of trials that agree in both, the best one counts.

    Returns:
        Data: a row per cell: x, y (null where absent), mean (infinite: diverged), n (seeds).

    Raises:
        ValueError: There is no such column.
    """
    import numpy as np

    tried = trials(runs.only(runs.runs["optimizer"] == optimizer).runs)
    tried = tried.assign(x=_levels(runs, x, tried), y=_levels(runs, y, tried))
    ended = tried[tried["n"] > 0].sort_values("mean", kind="stable")
    data = ended.drop_duplicates(["x", "y"])[["x", "y", "mean", "n"]].reset_index(drop=True)
    rows, columns = (sorted(set(data[name]), key=_size) for name in ("y", "x"))
    cells = data.set_index(["y", "x"])["mean"].to_dict()
    grid = np.array([[cells.get((row, column), math.nan) for column in columns] for row in rows])
    height = 1.2 + 0.34 * len(rows)
    figure, axes = new_axes(_name(x), _name(y), height=height)
    shades = np.ma.masked_invalid(grid.reshape(len(rows), len(columns)))
    low, high = lowest(data["mean"]), without_outliers(data["mean"])
    image = axes.imshow(shades, cmap="Blues_r", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        if math.isnan(value):
            continue
        text = f"{value:.3f}" if math.isfinite(value) else "diverged"
        dark = value < low + 0.5 * (high - low)
        weight = "bold" if value == low else "normal"
        tone: dict[str, Any] = {"color": "white" if dark else "black", "size": 7, "weight": weight}
        axes.text(column, row, text, ha="center", va="center", **tone)
    turned = 30 if len(columns) > MOST_LEVEL_TICKS else 0
    axes.set_xticks(range(len(columns)), list(map(shown, columns)), rotation=turned)
    axes.set_yticks(range(len(rows)), list(map(shown, rows)))
    axes.grid(visible=False)
    figure.colorbar(
        image, ax=axes, label="loss", extend="max" if high < data["mean"].max() else None
    )
    return Plot(
        figure,
        data,
        f"{optimizer}: mean final validation loss at each pair of values, of the best trial that "
        "has both; bold: the lowest. Empty: not run, or not ended.",
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
    names = [f"{r['optimizer']}, lr {brief(r['lr'])}" for r in records(data)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    floor = floor_of(runs.runs)
    if len(seeds):
        low, high = lowest([seeds.min(), floor]), seeds.max()
        margin = 0.08 * (high - low) or 0.01
        axes.set_xlim(low - margin, high + margin)
        draw_floor(axes, floor, upright=True)
        add_legend(figure, axes)
    return Plot(
        figure,
        data,
        "Final validation loss of the best trial of each optimizer. Rings: seeds; bar: their "
        "mean; line: 95 % interval of the mean by Student's t, cut at the axis.",
    )


@styled
def ablation(runs: Runs, *, optimizer: str) -> Plot:
    """One setting at a time around the best trial of an optimizer.

    Args:
        runs: Of one workload.
        optimizer: Whose.

    Returns:
        Data: the best trial first, its value all that was varied, then a row per trial that
        differs from it in exactly one setting: setting (column), value, n, mean, sd, and the
        ``gap`` to the best trial with ``low``, ``high`` and ``p`` as
        ``stats.significance.difference`` tells them.
    """
    import pandas as pd

    mine = runs.runs[runs.runs["optimizer"] == optimizer]
    found = trials(mine)
    columns = ["setting", "value", "n", "mean", "sd", "gap", "low", "high", "p"]
    rows: list[dict[str, Any]] = []
    about = ""
    for base in records(best_trials(found))[:1]:
        rows = _one_at_a_time(mine, records(found[found["n"] > 0]), base)
        about = f" ({base['mean']:.4f})"
    data = pd.DataFrame(rows, columns=columns)
    figure = _draw_gaps(data, optimizer)
    return Plot(
        figure,
        data,
        f"{optimizer}, one setting changed at a time from its best trial{about}: gap to its mean "
        "final validation loss, above 0 is worse; line: 95 % interval by Welch. Triangles lie "
        "beyond the axis or diverged.",
    )


def _one_at_a_time(
    runs: pd.DataFrame, found: list[dict[str, Any]], base: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of ``ablation``: the trials that differ from ``base`` in one setting or none."""
    settings = swept(runs)
    values = runs.drop_duplicates("trial").set_index("trial")[settings]
    rows = []
    for row in found:
        own, other = values.loc[row["trial"]], values.loc[base["trial"]]
        changed = [name for name in settings if str(own[name]) != str(other[name])]
        if len(changed) > 1:
            continue
        told = {key: row[key] for key in ("n", "mean", "sd")}
        if changed:
            gap = difference(row["losses"], base["losses"])
            told |= {"gap": gap.gap, "low": gap.low, "high": gap.high, "p": gap.p}
        name = changed[0] if changed else ""
        value = own[name] if name else setting_words(row["settings"])
        rows.append({"setting": name, "value": value, **told})
    return sorted(rows, key=_place)


def _place(row: dict[str, Any]) -> tuple[str, bool, float, str]:
    """The base first, then by setting and ``_size``."""
    return row["setting"], *_size(row["value"])


def _size(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, then texts."""
    is_number = isinstance(value, Real) and not math.isnan(value)
    return not is_number, float(value) if is_number else 0.0, str(value)


def _draw_gaps(data: pd.DataFrame, optimizer: str) -> Figure:
    changed = data[data["setting"] != ""]
    label = "gap to the best trial (nats per token)"
    figure, axes = new_axes(label, "", height=0.9 + 0.22 * len(changed))
    colour = look(optimizer).colour
    right = without_outliers([0.0, *changed["gap"]]) or 0.01
    for place, row in enumerate(records(changed)):
        if row["gap"] > right:
            axes.plot(right, place, ">", ms=5, color=colour, mfc="none")
            continue
        axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.2)
        axes.plot(row["gap"], place, "o", ms=4, color=colour)
    axes.axvline(0, color="#777777", lw=0.9)
    names = [f"{_name(row['setting'])} {shown(row['value'])}" for row in records(changed)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    low = lowest([0.0, *changed["gap"]])
    axes.set_xlim(low - 0.06 * (right - low), right + 0.06 * (right - low))
    axes.grid(visible=False, axis="y")
    return figure


def _name(column: str) -> str:
    """A setting in the words of an axis."""
    return "learning rate" if column == RATE else column.split("_params.")[-1]


def _with_value(runs: Runs, axis: str) -> pd.DataFrame:
    """The trials with their value of ``axis``, without those that have none."""
    found = trials(runs.runs)
    return _numbered(found.assign(value=_of_trials(runs, axis, found)))


def _of_trials(runs: Runs, axis: str, found: pd.DataFrame) -> pd.Series:
    """What each of ``found`` has in a column of the table of runs."""
    one_each = runs.runs.drop_duplicates("trial").set_index("trial")
    return found["trial"].map(dict(one_each[_column(axis, runs)]))


def _levels(runs: Runs, axis: str, found: pd.DataFrame) -> pd.Series:
    """The same with a text for what is absent, so that it is a value as others are."""
    values = _of_trials(runs, axis, found).astype(object)
    return values.where(values.notna(), ABSENT)


def _column(axis: str, runs: Runs) -> str:
    """The column of ``axis``; that of the learning rate is always there."""
    return "lr" if axis == RATE else column_of(axis, runs.runs)


def _left_out(runs: Runs, shown_runs: int) -> str:
    """A sentence on the runs that have a result and no number there."""
    count = int(outcome(runs.runs).notna().sum()) - shown_runs
    return f" Not shown: {count} run(s) without a number there." if count else ""


def _outcomes(runs: Runs, axis: str) -> pd.DataFrame:
    keys = runs.runs[["run_id", "optimizer", "seed", "state"]]
    data = keys.assign(value=runs.runs[_column(axis, runs)], loss=outcome(runs.runs))
    return _numbered(data).dropna(subset=["loss"])


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return table.assign(value=pd.to_numeric(table["value"], "coerce")).dropna(subset=["value"])


def _point_beyond(axes: Axes, end: str | None, row: dict[str, Any], colour: str) -> None:
    """An arrow from a best value at an end of those tried to where a better one may lie."""
    if not end:
        return
    away = -1 if end == "lowest" else 1
    axes.annotate(
        "",
        (row["value"], row["mean"]),
        xytext=(19 * away, 0),
        textcoords="offset points",
        annotation_clip=False,
        gid=f"{end} tried",
        arrowprops={"arrowstyle": "<|-", "color": colour, "lw": 1, "shrinkA": 0, "shrinkB": 5},
    )
