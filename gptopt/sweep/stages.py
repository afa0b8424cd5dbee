"""Stages of a sweep: which points come next, from what the runs before have found.

A setting is judged by the validation loss at the end of its runs, averaged over their seeds
(``gptopt.ranking``); a diverged run is the worst. Within each combination of the keys around the
stages the best settings are carried on, with all their seeds, and crossed with the next stage's
own keys, which win.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptopt import layout
from gptopt.files import read_json
from gptopt.ranking import comparable_means
from gptopt.state import read_state
from gptopt.sweep.generators import Point, Times, identity, plain, without
from gptopt.sweep.parts import Leaf, Part, Sweep

SEEDS = ("training.training_params.seed", "training.training_params.data_seed")


@dataclass(frozen=True)
class Setting:
    """Points that differ in nothing but their seeds.

    Attributes:
        points: One per seed.
        losses: By seed, of those that have a result, in nats per token; infinite for a diverged
            run.
    """

    points: list[Point]
    losses: dict[Hashable, float]

    @property
    def loss(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.losses.values())


@dataclass(frozen=True)
class Stage:
    """One stage of a sweep.

    Attributes:
        number: Counted from 1.
        points: One list per part of the sweep; empty for a part that has fewer stages.
        runs: The run directory of each point, in the order of all points.
        is_known: Whether the stages before have ended; if not, the points only stand for those
            to come, and there may be fewer.
    """

    number: int
    points: list[list[Point]]
    runs: list[Path]
    is_known: bool

    @property
    def size(self) -> int:
        """Number of points."""
        return sum(map(len, self.points))

    @property
    def missing(self) -> int:
        """Number of runs without a result."""
        return sum(loss_of(run) is None for run in set(self.runs))

    def losses(self) -> list[list[float | None]]:
        """The result of each point as things stand; None where there is none yet."""
        found = iter([loss_of(run) for run in self.runs])
        return [[next(found) for _ in points] for points in self.points]


def loss_of(run: Path) -> float | None:
    """The final validation loss of a run; infinite when it diverged, None while it has none."""
    state = read_state(run).state
    if state not in ("completed", "diverged"):
        return None
    marker = read_json(run / layout.TERMINAL[state]) or {}
    loss = (marker.get("final") or {}).get("val_loss")
    return loss if state == "completed" and isinstance(loss, float | int) else math.inf


def walk(
    sweep: Sweep, plan: Callable[[list[Point], int, bool], list[Path]], *, most: int
) -> list[Stage]:
    """Plans stage after stage.

    Those behind an unfinished one are planned with any points of it, so that they can be checked
    before anything is started.

    Args:
        sweep: What to plan.
        plan: Called with the points of a stage, its number and whether they are known; checks
            them and returns the run directory of each.
        most: Of each part of a later stage, so many points are made at the most.
    """
    found: list[Stage] = []
    points = [list(part.points()) for part in sweep.parts]
    losses: list[list[float]] = []
    is_known = True
    for number in range(1, sweep.stages + 1):
        if number > 1:
            ended = zip(sweep.parts, points, losses, strict=True)
            points = [
                list(itertools.islice(_following(part, number, tried, results), most))
                for part, tried, results in ended
            ]
        runs = plan([point for of_part in points for point in of_part], number, is_known)
        found.append(Stage(number, points, runs, is_known))
        if number == sweep.stages:
            break  # nobody goes on from its results
        is_known = is_known and found[-1].missing == 0
        losses = [
            [
                loss if is_known and loss is not None else float(index)
                for index, loss in enumerate(of_part)
            ]
            for of_part in found[-1].losses()
        ]
    return found


def settings(points: Sequence[Point], losses: Sequence[float | None]) -> list[Setting]:
    """Points and their results, those together that differ in their seeds alone."""
    found: dict[str, Setting] = {}
    for point, loss in zip(points, losses, strict=True):
        key = identity({key: value for key, value in point.items() if plain(key) not in SEEDS})
        setting = found.setdefault(key, Setting([], {}))
        setting.points.append(point)
        if loss is not None:
            setting.losses[_seed(point)] = loss
    return list(found.values())


def _seed(point: Point) -> Hashable:
    """What tells a point from the others of its setting; the order of the data follows the seed."""
    values = {plain(key): value for key, value in point.items()}
    seed = values.get(SEEDS[0])
    return seed, values.get(SEEDS[1], seed)


def _following(
    part: Part, number: int, points: Sequence[Point], losses: Sequence[float]
) -> Iterator[Point]:
    """The points of stage ``number`` of a part, whose stage before has these results."""
    if number - 2 >= len(part.later):
        return
    stage = part.later[number - 2]
    groups: dict[str, list[Setting]] = {}
    apart = part.apart(number - 1).difference(SEEDS)
    for setting in settings(points, losses):
        point = setting.points[0]
        key = identity({key: value for key, value in point.items() if plain(key) in apart})
        groups.setdefault(key, []).append(setting)
    once = set()
    for group in groups.values():
        # rounded: 0.07 of 100 settings are 7, and not 8
        share = isinstance(stage.top, float)
        count = math.ceil(round(stage.top * len(group), 9)) if share else int(stage.top)
        means = comparable_means([setting.losses for setting in group])
        for place in sorted(range(len(group)), key=means.__getitem__)[:count]:
            setting = group[place]
            if math.isinf(setting.loss):  # would diverge again
                continue
            for point in (point for leaf in stage.leaves for point in _carried(setting, leaf)):
                if identity(point) not in once:
                    once.add(identity(point))
                    yield point


def _carried(setting: Setting, leaf: Leaf) -> Iterator[Point]:
    """A setting with all its seeds, crossed with a block of the next stage."""
    multiplied = leaf.multiplied()
    for carried in without(setting.points, leaf.said.keys() - multiplied) or [{}]:
        values = {plain(key): value for key, value in carried.items()}
        names = {plain(key): key for key in carried}
        for row in leaf.rows():
            own = {
                names.get(plain(key), key): value.of(values[plain(key)])
                if isinstance(value, Times)
                else value
                for key, value in row.items()
            }
            if not leaf.drops(carried | own):
                yield carried | own
