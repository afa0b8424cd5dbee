"""params/*.json -> the points of a sweep. docs/sweeps.md has every word with an example.

    {"optimizer": ["adamw", "muon"], "lr": [0.001, 0.003], "seed": 0}        4 points
    {"seed": [0, 1], "$each": [{"optimizer": "adamw", "lr": [0.001, 0.003]},
                               {"optimizer": "muon", "lr": {"log": [0.01, 0.04, 3]}}]}  2 (2 + 3)

A list is swept, anything else is fixed; a choice that is itself a list is nested, as in
``"betas": [[0.9, 0.95], [0.9, 0.99]]``. ``$each`` is a list of blocks: each is crossed with
the keys around it, and its own keys win. Blocks may nest.

A key is an alias of the file (``$alias``) or of ``aliases.json`` (``lr``), a config group
(``optimizer``), or a dotted path (``training.training_params.seed``), with ``+`` in front where
it adds to the config.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gptopt.config.problems import ConfigError, Problem, show
from gptopt.sweep import generators, strict_json
from gptopt.sweep.block import EACH, Block, Place, Skip
from gptopt.sweep.generators import Axis, Point, plain
from gptopt.sweep.keys import aliases, groups
from gptopt.sweep.strict_json import pointer

__all__ = ["EACH", "Sweep", "aliases", "groups", "read"]

MOST_SKIPPED = 100_000
"""Points that are gone through, one by one, to see which of them $skip drops."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read: for each of its blocks, in the order in which they are run, its axes."""

    file: Path
    blocks: list[list[Axis]]

    @property
    def size(self) -> int:
        """Number of points."""
        return sum(math.prod(map(len, axes)) for axes in self.blocks)

    @property
    def grids(self) -> list[dict[str, list[Any]]]:
        """For each block, all values that a key takes."""
        return [
            {key: [row[key] for row in axis] for axis in axes for key in (axis or [{}])[0]}
            for axes in self.blocks
        ]

    def points(self) -> Iterator[Point]:
        """Every point; within a block the last axis varies fastest."""
        for axes in self.blocks:
            yield from _product(axes)


def read(file: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        ConfigError: With everything that is wrong in it, each at its JSON pointer.
    """
    reader = _Reader(file)
    try:
        sweep = Sweep(file, reader.block(strict_json.read(file), _Around(), ()))
    except RecursionError:
        message = "it nests too deep; a list as a value or a block in blocks goes a few levels."
        raise ConfigError([Problem("", message, str(file))]) from None
    if not reader.problems:
        reader.check_skips()
    if not reader.problems and not any(sweep.blocks):
        reader.report((), "it sets nothing, so there is nothing to sweep.")
    elif not reader.problems and not sweep.size:
        reader.report((), "$skip drops every point, so there is nothing to run.")
    if reader.problems:
        raise ConfigError(reader.problems)
    return sweep


def _product(axes: Sequence[Axis]) -> Iterator[Point]:
    for rows in itertools.product(*axes):
        yield {key: value for row in rows for key, value in row.items()}


@dataclass(frozen=True)
class _Around:
    """What a block inherits from those around it."""

    axes: list[Axis] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    aliases: dict[str, list[str]] = field(default_factory=dict)


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

    def block(self, block: Any, around: _Around, place: Place) -> list[list[Axis]]:
        """The axes of every block without blocks in it, crossed with those around it."""
        if not isinstance(block, dict):
            self.report(place, f'{show(block)}: it takes an object such as {{"lr": [0.001]}}.')
            return []
        own = Block(block, around.aliases, lambda at, message: self.report((*place, *at), message))
        own_skips = [replace(skip, place=(*place, *skip.place)) for skip in own.skips()]
        self.skips |= {skip.place: False for skip in own_skips}
        skips = around.skips + own_skips
        axes = own.axes()
        paths = set(own.said)
        kept = [rest for axis in around.axes if (rest := generators.without(axis, paths))]
        merged = kept + axes
        if EACH not in block:
            return [self._skipped(merged, skips)]
        inner = block[EACH]
        if not isinstance(inner, list) or not inner:
            self.report((*place, EACH), "it takes a list of objects, at least one.")
            return []
        return [
            leaf
            for number, child in enumerate(inner)
            for leaf in self.block(
                child, _Around(merged, skips, own.aliases), (*place, EACH, number)
            )
        ]

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
        for point in _product(axes[first:end]):
            dropping = [skip for skip in skips if skip.drops(point)]
            self.skips |= {skip.place: True for skip in dropping}
            if not dropping:
                left.append(point)
        return [*axes[:first], left, *axes[end:]]
