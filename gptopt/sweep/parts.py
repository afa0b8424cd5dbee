"""A sweep file, read: what its blocks come to.

A part is planned for itself: a block without blocks in it, or one with stages, of which only the
first has points before anything was run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptopt.sweep.block import Place, Skip
from gptopt.sweep.generators import Axis, Point, Times, is_number, plain


@dataclass(frozen=True)
class Leaf:
    """A block without blocks in it: its axes, those around it included.

    ``skips`` are those that are not applied yet, ``said`` tells where each path stands, ``drawn``
    which of them take what ``$sample`` draws.
    """

    axes: list[Axis]
    skips: list[Skip]
    said: dict[str, Place]
    drawn: frozenset[str]

    def rows(self) -> Iterator[Point]:
        """The product of its axes; the last one varies fastest."""
        return product(self.axes)

    def multiplied(self) -> set[str]:
        """The paths that take a multiple of what is carried."""
        rows = (row for axis in self.axes for row in axis)
        return {
            plain(key) for row in rows for key, value in row.items() if isinstance(value, Times)
        }

    def numbers(self) -> set[str]:
        """The paths that have a number in every point."""
        return {
            plain(key)
            for axis in self.axes
            for key in axis[0]
            if all(isinstance(row[key], Times) or is_number(row[key]) for row in axis)
        }

    def drops(self, point: Point) -> bool:
        """Whether ``$skip`` drops a point that is made of one of its rows."""
        paths = {plain(key) for key in point}
        return any(skip.choices.keys() <= paths and skip.drops(point) for skip in self.skips)


@dataclass(frozen=True)
class Later:
    """A stage after the first: it carries on the best ``top`` (a count, or a share) points."""

    top: float
    leaves: list[Leaf]


@dataclass(frozen=True)
class Part:
    """A block that is planned for itself: one without blocks in it, or one with stages.

    Attributes:
        place: Where it stands in the file.
        outer: The paths that are said around its stages.
        first: The leaves of its first stage, or of all there is.
        later: Its further stages.
    """

    place: Place
    outer: frozenset[str]
    first: list[Leaf]
    later: list[Later]

    def apart(self, stage: int) -> frozenset[str]:
        """The paths whose combinations have a best point each: outer, and not tried since."""
        leaves = (leaf for later in self.later[: stage - 1] for leaf in later.leaves)
        return self.outer.difference(*(leaf.said for leaf in leaves))

    def drawn(self, stage: int) -> frozenset[str]:
        """The paths whose values in a stage were drawn, there or in a stage before."""
        found: frozenset[str] = frozenset()
        for leaves in [self.first, *(later.leaves for later in self.later)][:stage]:
            found = found.difference(*(leaf.said for leaf in leaves))
            found = found.union(*(leaf.drawn for leaf in leaves))
        return found

    def points(self) -> Iterator[Point]:
        """Every point of its first stage."""
        for leaf in self.first:
            yield from leaf.rows()


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read: its parts, in the order in which they are run.

    What it tells of points and axes is of the first stage.
    """

    file: Path
    parts: list[Part]

    @property
    def stages(self) -> int:
        """Number of stages; 1 without ``$stages``."""
        return 1 + max(len(part.later) for part in self.parts)

    @property
    def blocks(self) -> list[list[Axis]]:
        """The axes of each block without blocks in it."""
        return [leaf.axes for part in self.parts for leaf in part.first]

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
        for part in self.parts:
            yield from part.points()


def product(axes: Sequence[Axis]) -> Iterator[Point]:
    """A point for each combination of their rows; the last axis varies fastest."""
    for rows in itertools.product(*axes):
        yield {key: value for row in rows for key, value in row.items()}
