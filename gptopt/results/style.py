"""How every figure looks: style, axes, limits, the look of an optimizer. Nothing touches pyplot.

An optimizer has the same colour, marker and dash in every figure, by its name alone; the colours
are those of Okabe and Ito (2008) without yellow, which print and common colour blindness keep
apart.
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


def styled(draw: Callable[Arguments, Plot]) -> Callable[Arguments, Plot]:
    """Draws with ``STYLE`` and leaves matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Plot:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def lowest(values: Iterable[float]) -> float:
    """The lowest finite value, or 0."""
    return min((value for value in values if math.isfinite(value)), default=0.0)


def without_outliers(values: Iterable[float]) -> float:
    """The highest value, or where an axis ends so that a few high ones do not squash the rest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 1.0
    low, middle, high = min(finite), statistics.median(finite), max(finite)
    return min(high, middle + 3 * (middle - low)) if middle > low else high


def new_axes(x_label: str, y_label: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure, ``WIDTH`` by ``height`` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def set_limits(
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


def on_top(axes: Axes, lrs: Iterable[float], height: float, shown: dict[str, Any]) -> None:
    """Markers on the top margin; those of one learning rate stand side by side."""
    from matplotlib.transforms import ScaledTranslation

    placed: dict[float, int] = {}
    for lr in lrs:
        shift = 5 * placed.get(lr, 0) / 72
        placed[lr] = placed.get(lr, 0) + 1
        aside = ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        place = axes.get_xaxis_transform() + aside
        axes.plot(lr, height, ls="none", ms=4.5, transform=place, clip_on=False, **shown)


def scale_rates(axes: Axes, lrs: Iterable[float]) -> None:
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


def add_legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(3, len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
