"""Whether the best value of an axis is one of its ends: then nobody knows what lies beyond.

Every group of points that compete has its own best: the same config groups (model, data,
optimizer ...), the same workload, the same values of the keys around the stages. Within a group a
number that takes three or more values is an axis, among the points that agree with the best one in
all that is no number; numbers that go together are one, those that were drawn are none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gptopt.config.problems import show
from gptopt.ranking import caveat, comparable_means
from gptopt.sweep.generators import Point, identity, is_number, plain
from gptopt.sweep.keys import aliases, groups
from gptopt.sweep.parts import Sweep
from gptopt.sweep.stages import SEEDS, Setting, Stage, settings

FEWEST = 3
TOLERANCE = 0.02
"""Of the factors of a grid: six digits, and those of 1, 3, 10 count as equal every other step."""
NEW_VALUES = 2
WORKLOAD = (
    "model.",
    "data.",
    "optimizer.optimizer_params.name",
    *(
        f"training.training_params.{name}"
        for name in ("max_steps", "num_epochs", "max_tokens", "context_length", "batch_size")
    ),
    "training.training_params.global_batch_size",
    "training.training_params.accumulation_steps",
)
"""What is compared under, not what is tuned."""


@dataclass(frozen=True)
class Edge:
    """An axis whose best value is its first or last.

    Attributes:
        is_last: The largest value, else the smallest.
        best: Path -> the best value; several paths where they go together.
        beyond: Path -> values that continue the axis; empty where it cannot go on.
    """

    is_last: bool
    best: dict[str, float]
    beyond: dict[str, list[float]]

    def __str__(self) -> str:
        values = ", ".join(f"{short(path)}={show(value)}" for path, value in self.best.items())
        where = f"EDGE {values} (best is {'last' if self.is_last else 'first'})"
        if not self.beyond:
            return f"{where}: the axis cannot go on"
        added = " with ".join(", ".join(map(show, values)) for values in self.beyond.values())
        return f"{where} -> add {added}"


@dataclass(frozen=True)
class Best:
    """The best setting of one group of one stage.

    Attributes:
        stage: Number of the stage.
        part: Number of the part of the sweep that the setting comes from.
        group: What all settings of the group share, and what tells it from the other groups.
        setting: The best one.
        edges: Empty while any of the group's runs has no result.
        missing: How many of them have none.
        caveat: Why it may not be the best; empty where all settings have the same seeds.
    """

    stage: int
    part: int
    group: Point
    setting: Setting
    edges: list[Edge]
    missing: int
    caveat: str


def best(sweep: Sweep, stage: Stage) -> list[Best]:
    """The best setting so far of every group of a stage that has a result, in the file's order."""
    competing: dict[str, list[tuple[int, Setting]]] = {}
    shown: dict[str, Point] = {}
    losses = stage.losses()
    for number, (part, points) in enumerate(zip(sweep.parts, stage.points, strict=True)):
        for setting in settings(points, losses[number]):
            group = _group(setting.points[0], part.apart(stage.number))
            competing.setdefault(identity(group), []).append((number, setting))
            shown[identity(group)] = group
    found = []
    for key, members in competing.items():
        ended = [(number, setting) for number, setting in members if setting.losses]
        if not ended:
            continue
        losses_of = [setting.losses for _, setting in ended]
        means = comparable_means(losses_of)
        place = min(range(len(means)), key=means.__getitem__)
        part_of_best, winner = ended[place]
        missing = sum(len(one.points) - len(one.losses) for _, one in members)
        is_whole = not missing and math.isfinite(winner.loss)
        drawn = sweep.parts[part_of_best].drawn(stage.number)
        edges = edges_of([one for _, one in members], winner, drawn) if is_whole else []
        doubt = caveat(losses_of, place)
        found.append(Best(stage.number, part_of_best, shown[key], winner, edges, missing, doubt))
    return found


def edges_of(tried: Sequence[Setting], winner: Setting, drawn: frozenset[str]) -> list[Edge]:
    """The axes of these settings at whose end ``winner`` lies; ``drawn`` paths are no axes."""
    chosen = {plain(key): value for key, value in winner.points[0].items()}
    words = {path for path, value in chosen.items() if not is_number(value)}
    points = [{plain(key): value for key, value in one.points[0].items()} for one in tried]
    points = [point for point in points if all(point.get(path) == chosen[path] for path in words)]
    together: dict[tuple[int, ...], list[tuple[str, list[float]]]] = {}
    for path, value in chosen.items():
        if path in SEEDS or path in drawn or not is_number(value):
            continue
        values = [point[path] for point in points if is_number(point.get(path))]
        axis = sorted(set(values))
        if len(axis) < FEWEST:
            continue
        ranks = tuple(axis.index(value) for value in values)
        mirrored = tuple(len(axis) - 1 - rank for rank in ranks)
        key = mirrored if mirrored in together else ranks
        together.setdefault(key, []).append((path, axis))
    found = []
    for axes in together.values():
        path, axis = axes[0]
        # no value lies below a grid that starts at zero
        if chosen[path] == axis[-1] or (chosen[path] == axis[0] and axis[0] != 0):
            beyond = {path: beyond_end(axis, chosen[path] == axis[-1]) for path, axis in axes}
            found.append(
                Edge(
                    chosen[path] == axis[-1],
                    {path: chosen[path] for path, _ in axes},
                    beyond if all(beyond.values()) else {},
                )
            )
    return found


def beyond_end(axis: Sequence[float], is_last: bool) -> list[float]:
    """Two values that continue a rising axis beyond its last or its first value.

    By the same difference where it has one, else by the same factor, also where only every other
    step has it (1, 3, 10, 30), else by the factor of the two values at that end. Shares that end
    close to 1 (momentum) continue by the factor of their distance to 1. Empty where an axis of
    positive values would leave them.
    """
    if axis[0] >= 0.5 and axis[-1] < 1:
        distances = [round(1 - value, 12) for value in reversed(axis)]
        return [float(f"{1 - value:.6g}") for value in beyond_end(distances, not is_last)]
    gaps = [right - left for left, right in itertools.pairwise(axis)]
    if max(gaps) - min(gaps) <= TOLERANCE * max(gaps):
        end, gap = (axis[-1], gaps[-1]) if is_last else (axis[0], -gaps[0])
        if axis[0] < 0 or end + NEW_VALUES * gap > 0:
            return [_rounded(end + step * gap, axis) for step in range(1, NEW_VALUES + 1)]
    positive = [value for value in axis if value > 0]
    if axis[0] < 0 or len(positive) < 2:
        return []
    rising = positive if is_last else [1 / value for value in reversed(positive)]
    period = _period(rising)
    for _ in range(NEW_VALUES):
        rising.append(rising[-period] * rising[-1] / rising[-1 - period])
    return [_rounded(end if is_last else 1 / end, axis) for end in rising[-NEW_VALUES:]]


def short(path: str) -> str:
    """A path by its short name, or by its last word where that is no other path's short name."""
    names = {target: alias for alias, target in aliases().items()}
    last = path.rsplit(".", 1)[-1]
    return names.get(path, path if last in aliases() else last)


def _group(point: Point, apart: frozenset[str]) -> Point:
    """The values of a point that are compared under."""
    return {
        plain(key): value
        for key, value in point.items()
        if plain(key) not in SEEDS
        and (plain(key) in groups() or plain(key) in apart or plain(key).startswith(WORKLOAD))
    }


def _period(rising: Sequence[float]) -> int:
    """How many steps apart the values of an axis have the same factor: 2 for 1, 3, 10, 30."""
    for period in (1, 2):
        factors = [b / a for a, b in zip(rising, rising[period:], strict=False)]
        if len(factors) > 1 and max(factors) <= (1 + TOLERANCE) * min(factors):
            return period
    return 1


def _rounded(value: float, axis: Sequence[float]) -> float:
    rounded = float(f"{value:.4g}")
    whole = all(isinstance(known, int) for known in axis) and rounded == int(rounded)
    return int(rounded) if whole else rounded
