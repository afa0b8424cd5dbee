"""params/*.json -> the points of a sweep.

    {"optimizer": ["adamw", "muon"], "lr": [0.001, 0.003], "seed": 0}        4 points
    {"seed": [0, 1], "$each": [{"optimizer": "adamw", "lr": [0.001, 0.003]},
                               {"optimizer": "muon", "lr": [0.01, 0.02, 0.04]}]}   2 (2 + 3)

A list is swept, anything else is fixed; a choice that is itself a list is nested, as in
``"betas": [[0.9, 0.95], [0.9, 0.99]]``. ``$each`` is a list of blocks: each is crossed with
the keys around it, and its own keys win. Blocks may nest.

A key is an alias of ``aliases.json`` (``lr``), a config group (``optimizer``), or a dotted path
(``training.training_params.seed``), with ``+`` in front where it adds to the config.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.config.checks import ConfigError, Problem, nearest, show
from gptopt.sweep import strict_json
from gptopt.sweep.overrides import problem_of
from gptopt.sweep.strict_json import pointer

EACH = "$each"
LATER = ("$zip", "$sample", "$center", "$stages", "$top", "$skip", "$alias")
GENERATORS = ("log", "lin", "loguniform", "uniform", "times")
PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)+", re.ASCII)
ALIASES = Path(__file__).with_name("aliases.json")

Point = dict[str, Any]
"""Config group or dotted path (``+`` and ``++`` kept) -> the value of one run."""
Axes = dict[str, list[Any]]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read: its grids, in the order in which they are run."""

    file: Path
    grids: list[Axes]

    @property
    def size(self) -> int:
        """Number of points."""
        return sum(math.prod(map(len, axes.values())) for axes in self.grids)

    def points(self) -> Iterator[Point]:
        """Every point; within a grid the last key varies fastest."""
        for axes in self.grids:
            for values in itertools.product(*axes.values()):
                yield dict(zip(axes, values, strict=True))


def read(file: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        ConfigError: With everything that is wrong in it, each at its JSON pointer.
    """
    block = strict_json.read(file)
    reader = _Reader(file)
    grids = reader.block(block, {}, ())
    if not reader.problems and not any(grids):
        reader.report((), "it sets nothing, so there is nothing to sweep.")
    if reader.problems:
        raise ConfigError(reader.problems)
    return Sweep(file, grids)


@cache
def aliases() -> Mapping[str, str]:
    """Short name -> config group or dotted path."""
    return json.loads(ALIASES.read_text(encoding="utf-8"))


@cache
def groups() -> Sequence[str]:
    """The config groups a sweep may choose from: the folders of hydra_conf."""
    folders = [path.name for path in layout.HYDRA_CONF.iterdir() if path.is_dir()]
    return sorted(set(folders) - {"hydra", "cluster"})


def target(key: str) -> str:
    """The group or dotted path that a key of a sweep file stands for.

    Raises:
        ValueError: It stands for nothing, or for what is no business of a sweep file.
    """
    plain = key.lstrip("+")
    prefix = key[: len(key) - len(plain)]
    parts = re.split(r"[./@]", plain)
    if key.startswith("~"):
        raise ValueError("a key cannot be removed; set it to null where that is allowed.")
    if parts[0] in ("hydra", "cluster"):
        raise ValueError(
            "where and how runs are started is said on the command line: --via, --cluster,"
            " cluster.timeout_min=30."
        )
    if any(part.startswith("_") and part.endswith("_") for part in parts):
        raise ValueError("names in underscores belong to Hydra and are not accepted.")
    if len(prefix) > 2 or (prefix and plain in aliases()):
        raise ValueError(f"write {plain!r}, without {prefix!r}.")
    found = aliases().get(plain, plain)
    if found in groups() or PATH.fullmatch(found):
        return prefix + found
    raise ValueError(
        "there is no such key."
        + (
            nearest(plain, [*aliases(), *groups()])
            or f" A key is a group ({', '.join(groups())}), an alias ({', '.join(aliases())})"
            " or a dotted path such as model.config.n_layer."
        )
    )


class _Reader:
    """Collects the problems of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def report(self, place: tuple[str | int, ...], message: str) -> None:
        at = pointer(*place)
        self.problems.append(Problem(at, message, f"{self.file} {at}" if at else str(self.file)))

    def block(self, block: Any, around: Axes, place: tuple[str | int, ...]) -> list[Axes]:
        """The grids of a block, crossed with the axes around it."""
        if not isinstance(block, dict):
            self.report(place, f'{show(block)}: it takes an object such as {{"lr": [0.001]}}.')
            return []
        axes: Axes = {}
        said: dict[str, str] = {}
        for key, spec in block.items():
            if key.startswith("$"):
                self._word(key, (*place, key))
                continue
            try:
                path = target(key)
            except ValueError as error:
                self.report((*place, key), str(error))
                continue
            other = said.setdefault(path.lstrip("+"), key)
            if other != key:
                self.report((*place, key), f"{other} says this, too: both are {path}; keep one.")
            axes[path] = self._choices(spec, (*place, key))
        merged = around | axes
        if EACH not in block:
            return [merged]
        inner = block[EACH]
        if not isinstance(inner, list) or not inner:
            self.report((*place, EACH), "it takes a list of objects, at least one.")
            return []
        return [
            grid
            for number, child in enumerate(inner)
            for grid in self.block(child, merged, (*place, EACH, number))
        ]

    def _word(self, word: str, place: tuple[str | int, ...]) -> None:
        if word in LATER:
            self.report(place, f"not built yet; {EACH} and plain lists are.")
        elif word != EACH:
            hint = nearest(word, (EACH, *LATER))
            self.report(place, f"there is no such word.{hint} There is: {EACH}.")

    def _choices(self, spec: Any, place: tuple[str | int, ...]) -> list[Any]:
        if isinstance(spec, list) and not spec:
            self.report(place, "an empty list leaves nothing to run.")
        choices = spec if isinstance(spec, list) else [spec]
        for number, choice in enumerate(choices):
            at = (*place, number) if isinstance(spec, list) else place
            if isinstance(choice, dict):
                self.report(at, _about_object(choice))
            elif (message := problem_of(choice)) is not None:
                self.report(at, message)
        return choices


def _about_object(value: Mapping[str, Any]) -> str:
    if len(value) == 1 and (name := next(iter(value))) in GENERATORS:
        return f'the generator {{"{name}": ...}} is not built yet; list the values.'
    return "an object is no value; write a dotted path for each of its keys."
