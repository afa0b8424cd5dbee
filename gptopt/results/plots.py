"""Figures of one workload. Each function returns the figure, its numbers and a caption.

The loss is in nats per token throughout. An optimizer has the same colour, marker and dash
in every figure, by its name alone; the colours are those of Okabe and Ito (2008) without
yellow, which print and common colour blindness keep apart. Nothing touches pyplot.
"""

from __future__ import annotations

import functools
import io
import math
import statistics
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from gptopt.results.load import Runs, records
from gptopt.results.stats import best_trials, outcome, trials

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#000000", "#56B4E9", "#E69F00", "#009E73", "#CC79A7")
MARKERS = ("P", "^", "D", "v", "o", "s")
DASHES = ("-", (0, (4, 1)), (0, (4, 1, 1, 1)), (0, (2, 1)))
LOOK_SEED = 83825  # of the hash; the names used most get seven colours, adamw the black

STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
WIDTH, HEIGHT = 5.0, 3.3  # inches; the text above is in points, so print keeps its size

XAxis = Literal["step", "tokens", "seconds"]
Loss = Literal["train_loss", "val_loss"]
X_LABELS = {"step": "optimizer steps", "tokens": "training tokens", "seconds": "training time (s)"}
Y_LABELS = {
    "train_loss": "training loss (nats per token)",
    "val_loss": "validation loss (nats per token)",
}
FINAL = "final validation loss (nats per token)"

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Plot:
    """A figure, the numbers it shows, and what a reader must know to read it."""

    figure: Figure
    data: pd.DataFrame
    caption: str

    def save(self, stem: Path) -> None:
        """Writes ``stem``.pdf for print and ``stem``.png for pages."""
        for kind in ("pdf", "png"):
            stem.with_name(f"{stem.name}.{kind}").write_bytes(self.render(kind))

    def render(self, kind: Literal["pdf", "png"]) -> bytes:
        """The figure as a file's content; the same numbers give the same bytes."""
        import matplotlib

        content = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            undated = {"CreationDate": None} if kind == "pdf" else {}
            self.figure.savefig(content, format=kind, metadata=undated)
        return content.getvalue()

    def _repr_png_(self) -> bytes:
        return self.render("png")


@dataclass(frozen=True)
class Look:
    """How an optimizer is drawn."""

    colour: str
    marker: str
    dash: Any


def look(optimizer: str) -> Look:
    """How ``optimizer`` is drawn in every figure; a function of the name alone."""
    rest, colour = divmod(zlib.crc32(optimizer.encode(), LOOK_SEED), len(COLOURS))
    return Look(COLOURS[colour], MARKERS[rest % len(MARKERS)], DASHES[rest % len(DASHES)])


def _styled(draw: Callable[Arguments, Plot]) -> Callable[Arguments, Plot]:
    @functools.wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Plot:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
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

    figure, axes = _axes(X_LABELS[x], Y_LABELS[loss])
    for run_id, run in data.groupby("run_id", sort=False):
        colour = look(run["optimizer"].iloc[0]).colour
        axes.plot(run[x], run[loss], color=colour, lw=0.6, alpha=0.4, gid=str(run_id))
    last = data.drop_duplicates("run_id", keep="last")
    right, top = _without_outliers(last[x]), _without_outliers(last[loss])
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
    _limit(axes, (0, right), (_lowest(data[loss]), top))
    for end in records(last[last["state"] == "diverged"]):
        place = min(end[x], right), min(end[loss], axes.get_ylim()[1])
        axes.plot(*place, "x", color=look(end["optimizer"]).colour, ms=4.5, clip_on=False)
    _legend(figure, axes)
    return Plot(
        figure,
        data,
        f"{Y_LABELS[loss].split(' (')[0].capitalize()} against {X_LABELS[x].split(' (')[0]}, not "
        "smoothed. Thin: every run, at any learning rate; a cross ends a diverged one. Bold: mean "
        "over the seeds of each optimizer's best trial, at steps that all of them logged; band: "
        "lowest to highest seed. What is far above the rest is cut off.",
    )


@_styled
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
    top = _without_outliers(data["loss"])
    figure, axes = _axes("learning rate", FINAL)
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
        _on_top(axes, off["lr"], 0.88, {"mfc": "none", "mec": style.colour, "marker": "^"})
        crossed = mine[mine["loss"] == math.inf]
        _on_top(axes, crossed["lr"], 0.96, {"color": style.colour, "marker": "x"})
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
    _limit(axes, None, (_lowest(data["loss"]), top), 0.1, 0.2 if lost or higher else 0.06)
    for height, text, present in ((0.96, "diverged", lost), (0.88, "higher", higher)):
        if present:
            axes.text(1.01, height, text, transform=axes.transAxes, va="center", size=7.5)
    _scale_rates(axes, data["lr"])
    _legend(figure, axes)
    return Plot(
        figure,
        data,
        "Final validation loss against the learning rate. A marker per run; lines go through the "
        "mean over seeds of the best trial at each learning rate; a ring marks the best mean, "
        "and the word below it says when that is the lowest or highest learning rate tried. "
        "Crosses are diverged runs, triangles on top lie above the axis.",
    )


@_styled
def best_per_optimizer(runs: Runs) -> Plot:
    """Final validation loss of each optimizer's best trial: seeds, mean, interval.

    Args:
        runs: Of one workload.

    Returns:
        Data: the rows of ``stats.best_trials`` that have a finite mean, best first.
    """
    best = best_trials(trials(runs.runs))
    data = best[best["mean"] < math.inf]
    figure, axes = _axes(FINAL, "", height=0.8 + 0.3 * len(data))
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


def _lowest(values: Iterable[float]) -> float:
    return min((value for value in values if math.isfinite(value)), default=0.0)


def _without_outliers(values: Iterable[float]) -> float:
    """The highest value, or where an axis ends so that a few high ones do not squash the rest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 1.0
    low, middle, high = min(finite), statistics.median(finite), max(finite)
    return min(high, middle + 3 * (middle - low)) if middle > low else high


def _axes(x_label: str, y_label: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def _limit(
    axes: Axes,
    x: tuple[float, float] | None,
    y: tuple[float, float],
    below: float = 0.04,
    above: float = 0.04,
) -> None:
    """Sets the limits; ``below`` and ``above`` are room beyond ``y``, as parts of its range."""
    if x:
        axes.set_xlim(x[0], x[1] * 1.02)
    height = y[1] - y[0] or 1.0
    axes.set_ylim(y[0] - below * height, y[1] + above * height)
    for axis, (_, high) in ((axes.xaxis, x or (0, 0)), (axes.yaxis, y)):
        if high >= 10_000:
            from matplotlib.ticker import EngFormatter

            axis.set_major_formatter(EngFormatter(sep=""))


def _on_top(axes: Axes, lrs: Iterable[float], height: float, shown: dict[str, Any]) -> None:
    """Markers on the top margin; those of one learning rate stand side by side."""
    from matplotlib.transforms import ScaledTranslation

    placed: dict[float, int] = {}
    for lr in lrs:
        shift = 5 * placed.get(lr, 0) / 72
        placed[lr] = placed.get(lr, 0) + 1
        aside = ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        place = axes.get_xaxis_transform() + aside
        axes.plot(lr, height, ls="none", ms=4.5, transform=place, clip_on=False, **shown)


def _scale_rates(axes: Axes, lrs: Iterable[float]) -> None:
    """Limits around ``lrs``; ticks at them where they fit, otherwise at 1, 2, 5 or decades."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    tried = sorted(lr for lr in set(lrs) if lr > 0)
    if not tried:
        return
    decades = math.log10(tried[-1] / tried[0])
    margin = 10 ** (0.05 * decades or 0.1)
    axes.set_xlim(tried[0] / margin, tried[-1] * margin)
    gaps = [math.log10(b / a) for a, b in zip(tried, tried[1:], strict=False)]
    if all(gap >= 0.11 * decades for gap in gaps):
        axes.xaxis.set_major_locator(FixedLocator(tried))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(3, len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
