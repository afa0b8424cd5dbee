"""How every figure looks: style, axes, limits, the look of an optimizer. Nothing touches pyplot.

An optimizer has the same colour, marker and dash in every figure, by its name alone. A colour
stands for relatives and a dash for one of them; the colours are those of Okabe and Ito (2008)
without yellow, which print and common colour blindness keep apart.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import statistics
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 1)), (0, (4, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))
KNOWN = (
    ("adamw", "nadamw", "adam", "pytorch_optimizer.StableAdamW", "pytorch_optimizer.Lamb"),
    ("muon", "normuon", "muon-momo", "muonh", "adamh"),
    ("muonmax-momo", "muonmax", "momo", "momo-adam", "prodigy"),
    ("soap", "shampoo", "kron", "adafactor", "pytorch_optimizer.CAME"),
    ("scion", "scion-momo", "lion", "signum", "sgd"),
    ("ns-nadam", "ademamix", "mars", "pytorch_optimizer.Adan", "cautious-adamw"),
    ("dap-ns-nadam", "newton-muon", "dap-ns-nadam-accel", "adopt", "schedule-free-adamw"),
)
"""The optimizers of each colour, one per dash, as the tables name them; any other name gets a look
by its hash."""

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
FLOOR = "lowest possible"
LONG_LABEL = 18
"""Characters of which three labels no longer stand side by side above a figure."""
LOGARITHMIC = 4.0
"""An axis is logarithmic when its highest value is this many times its lowest one."""
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
    for colour, names in enumerate(KNOWN):
        if optimizer in names:
            return _look(colour, names.index(optimizer))
    return _look(
        *divmod(zlib.crc32(optimizer.encode()) % (len(COLOURS) * len(DASHES)), len(DASHES))
    )


def _look(colour: int, member: int) -> Look:
    return Look(COLOURS[colour], MARKERS[(colour + member) % len(MARKERS)], DASHES[member])


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


def on_top(
    axes: Axes,
    places: Iterable[float],
    height: float,
    placed: Counter[float],
    shown: dict[str, Any],
) -> None:
    """Markers on the top margin; those of one place stand side by side.

    Args:
        axes: Where.
        places: Horizontal ones.
        height: As a part of that of the axes.
        placed: How many stand at each place of this height; is counted on.
        shown: How a marker looks.
    """
    from matplotlib.transforms import ScaledTranslation

    for place in places:
        shift = 5 * placed[place] / 72
        placed[place] += 1
        aside = ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
        above = axes.get_xaxis_transform() + aside
        axes.plot(place, height, ls="none", ms=4.5, transform=above, clip_on=False, **shown)


def scale_axis(axes: Axes, values: Iterable[float]) -> None:
    """A horizontal axis around ``values``: logarithmic where they are above 0 and far apart.

    Ticks stand at the values where they fit, otherwise at 1, 2, 5 or decades.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    tried = sorted(set(values))
    if not tried:
        return
    if tried[0] <= 0 or tried[-1] / tried[0] < LOGARITHMIC:
        margin = 0.05 * (tried[-1] - tried[0]) or 0.1 * abs(tried[0]) or 1.0
        axes.set_xlim(tried[0] - margin, tried[-1] + margin)
        gaps = [(b - a) / (tried[-1] - tried[0]) for a, b in itertools.pairwise(tried)]
        if all(gap >= 0.11 for gap in gaps):
            axes.xaxis.set_major_locator(FixedLocator(tried))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    axes.set_xscale("log")
    decades = math.log10(tried[-1] / tried[0])
    margin = 10 ** (0.05 * decades)
    axes.set_xlim(tried[0] / margin, tried[-1] * margin)
    if all(math.log10(b / a) >= 0.11 * decades for a, b in itertools.pairwise(tried)):
        axes.xaxis.set_major_locator(FixedLocator(tried))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def whole_steps(axes: Axes, *, most: int | None = None) -> None:
    """Ticks of the horizontal axis at whole numbers alone, ``most`` of them."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(most or "auto", integer=True))


def floor_of(runs: pd.DataFrame) -> float:
    """The lowest loss that any model can have on the data of these runs; NaN where unknown."""
    known = runs["run.best_loss"].dropna() if "run.best_loss" in runs else runs["lr"][:0]
    return float(known.iloc[0]) if known.nunique() == 1 else math.nan


def draw_floor(axes: Axes, floor: float, *, upright: bool = False) -> None:
    """A line at the lowest loss that there can be, if it is known."""
    if math.isnan(floor):
        return
    draw = axes.axvline if upright else axes.axhline
    draw(floor, color="#777777", lw=0.9, ls=(0, (1, 2)), label=FLOOR, gid=FLOOR)


def add_legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(2 if max(map(len, labels), default=0) > LONG_LABEL else 3, len(handles))
    while columns:
        legend = figure.legend(handles, labels, loc="outside upper left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
        columns -= 1
