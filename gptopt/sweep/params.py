"""params/*.json -> the points of a sweep. docs/sweeps.md has every word with an example.

    {"optimizer": ["adamw", "muon"], "lr": [0.001, 0.003], "seed": 0}        4 points
    {"seed": [0, 1], "$each": [{"optimizer": "adamw", "lr": [0.001, 0.003]},
                               {"optimizer": "muon", "lr": {"log": [0.01, 0.04, 3]}}]}  2 (2 + 3)

A list is swept, anything else is fixed; a choice that is itself a list is nested, as in
``"betas": [[0.9, 0.95], [0.9, 0.99]]``. ``$each`` is a list of blocks: each is crossed with
the keys around it, and its own keys win. Blocks may nest. ``$stages`` is a list of blocks that
are run one after the other: the first is read like any other, the later ones go on from what the
stage before has found, which ``stages`` does.

A key is an alias of the file (``$alias``) or of ``aliases.json`` (``lr``), a config group
(``optimizer``), or a dotted path (``training.training_params.seed``), with ``+`` in front where
it adds to the config.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptopt.config.problems import ConfigError, Problem, show
from gptopt.sweep import generators, strict_json
from gptopt.sweep.block import EACH, STAGES, TOP, Block, Place, Skip
from gptopt.sweep.generators import Axis, plain
from gptopt.sweep.keys import aliases, groups
from gptopt.sweep.parts import Later, Leaf, Part, Sweep, product
from gptopt.sweep.strict_json import pointer

__all__ = ["EACH", "Sweep", "aliases", "groups", "read", "read_what_can_be"]

MOST_SKIPPED = 100_000
"""Points that are gone through, one by one, to see which of them $skip drops."""


def read(file: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        ConfigError: With everything that is wrong in it, each at its JSON pointer.
    """
    sweep, problems = read_what_can_be(file)
    if problems:
        raise ConfigError(problems)
    return sweep


def read_what_can_be(file: Path) -> tuple[Sweep, list[Problem]]:
    """Reads a sweep file: what of it can be read, and a problem for all else.

    Raises:
        ConfigError: It is no JSON, or nests too deep.
    """
    reader = _Reader(file)
    try:
        sweep = Sweep(file, reader.parts(strict_json.read(file), _Around(), ()))
    except RecursionError:
        message = "it nests too deep; a list as a value or a block in blocks goes a few levels."
        raise ConfigError([Problem("", message, str(file))]) from None
    if not reader.problems:
        reader.check_skips()
    if not reader.problems and not any(sweep.blocks):
        reader.report((), "it sets nothing, so there is nothing to sweep.")
    elif not reader.problems and not sweep.size:
        reader.report((), "$skip drops every point, so there is nothing to run.")
    return sweep, reader.problems


@dataclass(frozen=True)
class _Around:
    """What a block inherits from those around it."""

    axes: list[Axis] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, Place] = field(default_factory=dict)
    drawn: frozenset[str] = frozenset()
    stage: int = 0  # counted from 1; 0 outside of stages

    @property
    def is_later(self) -> bool:
        """Whether it goes on from what another stage has found."""
        return self.stage > 1


class _Reader:
    """Collects the problems of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.skips: dict[Place, bool] = {}  # place -> whether it dropped a point

    def report(self, place: Place, message: str) -> None:
        at = pointer(*place)
        self.problems.append(Problem(at, message, f"{self.file} {at}" if at else str(self.file)))

    def check_skips(self) -> None:
        """A skip that drops nothing is a mistake: a misspelt value, or one rounded otherwise."""
        for place, is_used in self.skips.items():
            if not is_used:
                self.report(place, "no point has these values, so it drops nothing.")

    def parts(self, block: Any, around: _Around, place: Place) -> list[Part]:
        """Every part of a block, crossed with the axes around it."""
        if not isinstance(block, dict):
            self.report(place, f'{show(block)}: it takes an object such as {{"lr": [0.001]}}.')
            return []
        inside = self._inside(block, around, place)
        if EACH in block and STAGES in block:
            message = f"{EACH} stands here, too; put one of them into the blocks of the other."
            self.report((*place, STAGES), message)
            return []
        if EACH in block:
            blocks = self._blocks(block, EACH, place)
            return [part for at, child in blocks for part in self.parts(child, inside, at)]
        if STAGES in block:
            return self._staged(self._blocks(block, STAGES, place), inside, place)
        axes = inside.axes if inside.is_later else self._skipped(inside.axes, inside.skips)
        skips = inside.skips if inside.is_later else []
        leaf = Leaf(axes, skips, inside.said, inside.drawn)
        return [Part(place, frozenset(), [leaf], [])]

    def _inside(self, block: dict[str, Any], around: _Around, place: Place) -> _Around:
        """What the blocks in ``block`` inherit: the axes around it, and its own, which win."""
        own = Block(
            block,
            around.aliases,
            lambda at, message: self.report((*place, *at), message),
            is_later=around.is_later,
        )
        if TOP in block and not (around.is_later and place[-2] == STAGES):
            message = f"it stands in a block of {STAGES}, from the second on; there is nothing yet"
            self.report((*place, TOP), f"{message} to carry on here.")
        own_skips = [replace(skip, place=(*place, *skip.place)) for skip in own.skips()]
        if not around.is_later:  # a later stage knows its points when the one before has ended
            self.skips |= {skip.place: False for skip in own_skips}
        axes = own.axes()
        paths = set(own.said)
        kept = [rest for axis in around.axes if (rest := generators.without(axis, paths))]
        said = around.said | {path: (*place, *at) for path, at in own.said.items()}
        skips = around.skips + own_skips
        drawn = (around.drawn - paths) | own.drawn
        return _Around(kept + axes, skips, own.aliases, said, drawn, around.stage)

    def _blocks(self, block: dict[str, Any], word: str, place: Place) -> list[tuple[Place, Any]]:
        """The blocks in a list of blocks, each with its place."""
        inner = block[word]
        if not isinstance(inner, list) or not inner:
            self.report((*place, word), "it takes a list of objects, at least one.")
            return []
        return [((*place, word, number), child) for number, child in enumerate(inner)]

    def _staged(self, blocks: list[tuple[Place, Any]], around: _Around, place: Place) -> list[Part]:
        if around.stage:
            self.report((*place, STAGES), "stages do not nest.")
            return []
        outer = frozenset(plain(key) for axis in around.axes for key in axis[0])
        stages: list[list[Leaf]] = []
        tops: list[float] = []
        for number, (at, block) in enumerate(blocks, start=1):
            inside = replace(around, stage=number)
            if number > 1:
                inside = replace(inside, axes=[], said={}, drawn=frozenset())
                tops.append(self._top(block, at))
            stages.append([part.first[0] for part in self.parts(block, inside, at)])
        if self.problems or not stages:
            return []
        self._check_times(stages)
        return [Part(place, outer, stages[0], list(map(Later, tops, stages[1:])))]

    def _top(self, block: Any, place: Place) -> float:
        """Its ``$top``; 1 where there is a problem."""
        if isinstance(block, dict) and TOP not in block:
            message = f'a later stage takes "{TOP}": how many of the best points it carries on.'
            self.report(place, message)
        elif isinstance(block, dict):
            try:
                return generators.top(block[TOP])
            except ValueError as error:
                self.report((*place, TOP), str(error))
        return 1

    def _check_times(self, stages: list[list[Leaf]]) -> None:
        """A value can be multiplied where every point of the stage before has a number."""
        carried: set[str] = set()
        for leaves in stages:
            for leaf in leaves:
                for path in sorted(leaf.multiplied() - carried):
                    self.report(
                        leaf.said[path],
                        f"times multiplies a carried value: give {path} a number in every block of"
                        " a stage before, or around the stages.",
                    )
            numbers = [leaf.numbers() for leaf in leaves]
            carried = {
                path
                for path in carried.union(*numbers)
                if all(
                    path in known or (path in carried and path not in leaf.said)
                    for leaf, known in zip(leaves, numbers, strict=True)
                )
            }

    def _skipped(self, axes: list[Axis], skips: list[Skip]) -> list[Axis]:
        """The axes that skips speak of become one, without what they drop."""
        numbers = {plain(key): number for number, axis in enumerate(axes) for key in axis[0]}
        skips = [skip for skip in skips if all(path in numbers for path in skip.choices)]
        spoken_of = [numbers[path] for skip in skips for path in skip.choices]
        if not spoken_of:
            return axes
        # Those between go with them, so that the points stay in their order.
        first, end = min(spoken_of), max(spoken_of) + 1
        count = math.prod(map(len, axes[first:end]))
        if count > MOST_SKIPPED:
            message = f"{count:,} points to go through; it takes at most {MOST_SKIPPED:,}."
            self.report(skips[0].place, message)
            return axes
        left = []
        for point in product(axes[first:end]):
            dropping = [skip for skip in skips if skip.drops(point)]
            self.skips |= {skip.place: True for skip in dropping}
            if not dropping:
                left.append(point)
        return [*axes[:first], left, *axes[end:]]
