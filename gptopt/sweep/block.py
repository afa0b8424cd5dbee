"""The keys and words of one block of a sweep file -> its axes, its skips, its aliases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptopt.config.problems import nearest, show
from gptopt.sweep import generators
from gptopt.sweep.generators import Axis, Interval, Point, plain, same
from gptopt.sweep.keys import target
from gptopt.sweep.overrides import problem_of
from gptopt.sweep.strict_json import pointer

EACH, STAGES, TOP = "$each", "$stages", "$top"
WORDS = (EACH, "$zip", "$sample", "$center", STAGES, TOP, "$skip", "$alias")
GENERATORS = (*generators.SPACED, *generators.DRAWN, "times")
SHORT = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Skip:
    """Points to drop: those that have, at each path, one of these values."""

    place: Place
    choices: dict[str, list[Any]]

    def drops(self, point: Point) -> bool:
        """Whether a point with all these paths is such a point."""
        values = {plain(key): value for key, value in point.items()}
        return all(
            any(same(values[path], choice) for choice in choices)
            for path, choices in self.choices.items()
        )


class Block:
    """Reads one block: its own keys and words, but for the blocks in it."""

    def __init__(
        self,
        block: Mapping[str, Any],
        aliases: Mapping[str, list[str]],
        report: Callable[[Place, str], None],
        *,
        is_later: bool,
    ) -> None:
        """``report`` takes a place in the block.

        Args:
            block: As JSON has it.
            aliases: Those of the blocks around it.
            report: Is told of problems.
            is_later: Whether it belongs to a stage after the first.
        """
        self.block = block
        self.said: dict[str, Place] = {}  # path -> where it is said
        self.drawn: frozenset[str] = frozenset()  # paths, once its axes are known
        self._tell = report
        self._is_sound = True
        self._is_later = is_later
        for word in block:
            if word.startswith("$") and word not in WORDS:
                hint = nearest(word, WORDS)
                self._report((word,), f"there is no such word.{hint} There is: {', '.join(WORDS)}.")
        self.aliases = {**aliases, **self._aliases()}

    def axes(self) -> list[Axis]:
        """Its axes, in the order of the file; a star or a sample comes last."""
        found = [axis for key, spec in self.block.items() for axis in self._read(key, spec)]
        if "$sample" in self.block and "$center" in self.block:
            self._report(("$center",), "$sample stands here, too; keep one of the two.")
            return []
        if "$sample" in self.block:
            return self._sampled(found)
        listed = [axis for axis in found if not isinstance(axis, Interval)]
        return self._star(listed) if "$center" in self.block else listed

    def skips(self) -> list[Skip]:
        """Its ``$skip``: a list of partial points, where a list is any of its values."""
        if "$skip" not in self.block:
            return []
        given = self.block["$skip"]
        if not isinstance(given, list) or not given:
            self._report(("$skip",), 'it takes a list of objects such as {"lr": 0.1, "wd": 0}.')
            return []
        skips = []
        for number, partial in enumerate(given):
            at = ("$skip", number)
            if not isinstance(partial, dict) or not partial:
                message = f'{show(partial)}: it takes an object such as {{"lr": 0.1, "wd": 0}}.'
                self._report(at, message)
                continue
            choices = {
                plain(path): values
                for key, spec in partial.items()
                for path in self._paths(key, (*at, key))
                if (values := self._choices(spec, (*at, key)))
            }
            skips.append(Skip(at, choices))
        return skips

    def _report(self, at: Place, message: str) -> None:
        self._tell(at, message)
        self._is_sound = False

    def _aliases(self) -> dict[str, list[str]]:
        if "$alias" not in self.block:
            return {}
        given = self.block["$alias"]
        if not isinstance(given, dict) or not given:
            message = 'it takes an object such as {"decay": "lr_scheduler.decay_fraction"}.'
            self._report(("$alias",), message)
            return {}
        found: dict[str, list[str]] = {}
        for short, paths in given.items():
            at = ("$alias", short)
            found[short] = []  # known, whatever is wrong with it: its uses are no further problem
            if not SHORT.fullmatch(short):
                self._report(at, "a short name takes letters, digits, _ and -.")
            elif not isinstance(paths, str | list) or not paths:
                self._report(at, f"{show(paths)}: it takes a path or a list of paths.")
            else:
                found[short] = self._targets([paths] if isinstance(paths, str) else paths, at)
        return found

    def _targets(self, paths: list[Any], at: Place) -> list[str]:
        found: dict[str, str] = {}
        for path in paths:
            if not isinstance(path, str):
                self._report(at, f"{show(path)}: it takes a path or a list of paths.")
                continue
            try:
                full = target(path)
            except ValueError as error:
                self._report(at, f"{show(path)}: {error}")
                continue
            if plain(full) in found:
                self._report(at, f"it names {full} twice.")
            found[plain(full)] = full
        return list(found.values())

    def _paths(self, key: str, at: Place) -> list[str]:
        """The groups or dotted paths that a key stands for; none where that is a problem."""
        if key in self.aliases:
            return self.aliases[key]
        try:
            if plain(key) in self.aliases:
                raise ValueError(f"write {plain(key)!r}; the + goes into $alias.")
            return [target(key)]
        except ValueError as error:
            hint = "" if "Did you mean" in str(error) else nearest(plain(key), self.aliases)
            self._report(at, f"{error}{hint}")
            return []

    def _read(self, key: str, spec: Any) -> Sequence[Axis | Interval]:
        if key == "$zip":
            return self._zips(spec)
        axis = None if key.startswith("$") else self._axis(key, spec, (key,))
        return [axis] if axis else []

    def _axis(self, key: str, spec: Any, at: Place) -> Axis | Interval | None:
        """The axis of a key; None where there is a problem with it."""
        paths = self._paths(key, at)
        for path in paths:
            other = self.said.setdefault(plain(path), at)
            if other != at:
                label = pointer(*other) if len(other) > 1 else other[0]
                self._report(at, f"{label} says this, too: both are {path}; keep one.")
        if isinstance(spec, dict) and len(spec) == 1 and next(iter(spec)) in generators.DRAWN:
            ((name, bounds),) = spec.items()
            if "$sample" not in self.block:
                message = f'{name} is drawn by "$sample": n in the same block;'
                self._report(at, f"{message} without it, take log or lin.")
                return None
            try:
                return generators.interval(name, bounds, tuple(paths))
            except ValueError as error:
                self._report((*at, name), str(error))
                return None
        values = self._choices(spec, at)
        return [dict.fromkeys(paths, value) for value in values] if paths else None

    def _choices(self, spec: Any, at: Place) -> list[Any]:
        """The values that are listed or spaced; none where there is a problem with them."""
        if isinstance(spec, dict):
            return self._generated(spec, at)
        if isinstance(spec, list) and not spec:
            self._report(at, "an empty list leaves nothing to run.")
        choices = spec if isinstance(spec, list) else [spec]
        messages = [_about_value(choice) for choice in choices]
        for number, message in enumerate(messages):
            if message is not None:
                self._report((*at, number) if isinstance(spec, list) else at, message)
        return [] if any(messages) else choices

    def _generated(self, spec: Mapping[str, Any], at: Place) -> list[Any]:
        name = next(iter(spec), "")
        made = (*generators.SPACED, "times") if self._is_later else generators.SPACED
        if len(spec) != 1 or name not in made:
            self._report(at, _about_object(spec))
            return []
        try:
            if name == "times":
                return generators.factors(spec[name])
            return generators.spaced(name, spec[name])
        except ValueError as error:
            self._report((*at, name), str(error))
            return []

    def _zips(self, given: Any) -> list[Axis]:
        several = given if isinstance(given, list) else [given]
        if not several:
            self._report(("$zip",), "an empty list pairs nothing.")
        axes = []
        for number, pairs in enumerate(several):
            at: Place = ("$zip", number) if isinstance(given, list) else ("$zip",)
            if not isinstance(pairs, dict) or not pairs:
                example = '{"bs": [32, 64], "lr": [0.001, 0.002]}'
                self._report(at, f"{show(pairs)}: it takes an object such as {example}.")
            elif axis := self._zip(pairs, at):
                axes.append(axis)
        return axes

    def _zip(self, pairs: Mapping[str, Any], at: Place) -> Axis:
        columns: dict[str, Axis] = {}
        for key, spec in pairs.items():
            if not isinstance(spec, list | dict):
                self._report((*at, key), f"{show(spec)}: it takes a list, as long as the others.")
                continue
            column = self._axis(key, spec, (*at, key))
            if isinstance(column, Interval):
                self._report((*at, key), "what is drawn cannot be paired; take log or lin.")
            elif column:
                columns[key] = column
        if len(columns) < len(pairs):
            return []
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            self._report(at, f"{told} values; paired lists are equally long.")
            return []
        return [
            {key: value for row in rows for key, value in row.items()}
            for rows in zip(*columns.values(), strict=True)
        ]

    def _sampled(self, axes: list[Axis | Interval]) -> list[Axis]:
        try:
            sample = generators.sample_of(self.block["$sample"])
        except ValueError as error:
            self._report(("$sample",), str(error))
            return []
        fixed = [axis for axis in axes if isinstance(axis, list) and len(axis) == 1]
        drawn = [axis for axis in axes if axis not in fixed]
        if not drawn and self._is_sound:
            message = "there is nothing to draw: its block takes a list, loguniform or uniform."
            self._report(("$sample",), message)
        axis = sample.draw(drawn)
        self.drawn = frozenset(plain(key) for key in axis[0])
        return [*fixed, axis]

    def _star(self, axes: list[Axis]) -> list[Axis]:
        given = self.block["$center"]
        if not isinstance(given, dict) or not given:
            message = f'{show(given)}: it takes an object such as {{"lr": 0.008, "wd": 0.1}}.'
            self._report(("$center",), message)
            return []
        centre: Point = {}
        for key, value in given.items():
            at = ("$center", key)
            paths = self._paths(key, at)
            if (problem := _about_value(value)) is not None:
                self._report(at, problem)
            elif any(len(self.said.get(plain(path), ())) != 1 for path in paths):
                self._report(at, f'the values to try are missing: add "{key}": [...] beside it.')
            elif any(path in centre for path in paths):
                self._report(at, "another key of $center says this, too; keep one.")
            centre |= dict.fromkeys(paths, value)
        moved = [axis for axis in axes if any(key in centre for key in axis[0])]
        if not all(key in centre for axis in moved for key in axis[0]):
            message = "it holds a part of the paths of an alias; take the alias itself."
            self._report(("$center",), message)
            return []
        return [*(axis for axis in axes if axis not in moved), generators.star(centre, moved)]


def _about_value(value: Any) -> str | None:
    return _about_object(value) if isinstance(value, dict) else problem_of(value)


def _about_object(value: Mapping[str, Any]) -> str:
    names = [name for name in value if name in GENERATORS]
    if names == ["times"] == list(value):
        return "times multiplies the value of the stage before; it goes into a later one."
    if names and len(value) > 1:
        return f'a generator is an object with one key, as {{"{names[0]}": [...]}}.'
    if names:
        return f'{{"{names[0]}": ...}} stands alone, in place of the list.'
    hint = nearest(next(iter(value), ""), GENERATORS)
    return f"an object is no value; write a dotted path for each of its keys.{hint}"
