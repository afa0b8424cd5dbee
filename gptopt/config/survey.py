"""All points of a sweep, composed and checked: the same as composing one after the other.

Points that choose the same groups and set the same keys are members of one family; only its
first point is composed by Hydra. What is more than a plain value (an interpolation, a mapping)
makes a family of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gptopt import layout
from gptopt.config import identity, resolve
from gptopt.config.compose import draft
from gptopt.config.family import Family, Leaf, Member, is_structural
from gptopt.config.interpolations import EntangledError
from gptopt.config.problems import ConfigError, Problem
from gptopt.config.typed import Override, is_group, parse, spelled_out

NUMBER = re.compile(
    r"(?P<key>\+{0,2}[A-Za-z_][\w.]*)=(?:(?P<whole>-?(?:0|[1-9]\d*))"
    r"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?)",
    re.ASCII,
)
"""Most values; they need no parser, which would take a hundred times as long."""
MOST_REFUSED = 50
"""Families refused as a whole, after which no more are composed."""

Measure = Callable[[Mapping[str, Any]], Any]
"""Something worked out from the plain nodes of a configuration that has no problems."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What planning needs to know of a composed configuration.

    Attributes:
        run_id: Its identity.
        run: Its directory.
        measured: What each measure says of it.
    """

    run_id: str
    run: Path
    measured: tuple[Any, ...]


@dataclass(frozen=True)
class Survey:
    """Every point of a sweep.

    Attributes:
        sketches: One for each point; None where it has problems.
        problems: Each with the numbers of the points that have it.
        not_looked_at: How many points were not, since too many others were wrong.
    """

    sketches: list[Sketch | None]
    problems: dict[Problem, list[int]]
    not_looked_at: int


@dataclass(frozen=True, slots=True)
class _Given:
    """One override.

    Attributes:
        shape: What members of a family share: the key, or the whole override.
        path: The key that it sets; empty for a choice of a group, which comes before all keys.
        leaf: The plain value that members may differ in.
    """

    shape: str
    path: str
    leaf: Leaf | None


def survey(
    points: Iterable[Sequence[str]],
    *,
    origin: str,
    measures: Sequence[Measure] = (),
    config_dir: Path = layout.HYDRA_CONF,
) -> Survey:
    """Composes and checks all points.

    Args:
        points: The override strings of each.
        origin: Where they come from, for messages.
        measures: Asked about each configuration, once for the same values of what they read.
        config_dir: The tree of YAML files.
    """
    surveyor = _Surveyor(origin, tuple(measures), config_dir)
    for index, texts in enumerate(points):
        surveyor.look_at(index, texts)
    return Survey(surveyor.sketches, surveyor.problems, surveyor.not_looked_at)


class _Surveyor:
    def __init__(self, origin: str, measures: tuple[Measure, ...], config_dir: Path) -> None:
        self.origin, self.measures, self.config_dir = origin, measures, config_dir
        self.sketches: list[Sketch | None] = []
        self.problems: dict[Problem, list[int]] = {}
        self.not_looked_at = 0
        self._read: dict[str, _Given] = {}
        self._families: dict[tuple[str, ...], Family | list[Problem] | None] = {}
        self._refused = 0

    def look_at(self, index: int, texts: Sequence[str]) -> None:
        given = [self._read.get(text) or self._given(text) for text in texts]
        shape = tuple([one.shape for one in given])
        family = self._families.get(shape, ...)
        if family is ...:
            family = self._families[shape] = self._family(texts, given)
        if family is None:  # entangled: this point alone
            given = []
            family = self._family(texts, given) if self._refused < MOST_REFUSED else ...
        self.sketches.append(None)
        if family is ... or family is None:
            self.not_looked_at += 1
            return
        if isinstance(family, list):
            problems = family
        else:
            member = family.member({one.path: one.leaf for one in given if one.leaf is not None})
            problems = member.problems
            if not problems:
                self.sketches[-1] = self._sketch(family, member)
        for problem in problems:
            self.problems.setdefault(problem, []).append(index)

    def _family(self, texts: Sequence[str], given: list[_Given]) -> Family | list[Problem] | None:
        """A family with its first member; its problems if it has none; None where entangled."""
        changing = [one.path for one in given if one.leaf is not None]
        if _overlap([one.path for one in given], changing):
            return None
        try:
            resolve.check_plugins(tuple(resolve.plugin_directories()))
            made = draft(spelled_out(texts), config_dir=self.config_dir, origin=self.origin)
            family = Family(made, changing)
        except EntangledError:
            return None
        except ConfigError as error:
            self._refused += 1
            return error.problems
        self._refused += bool(family.problems)
        return family

    def _given(self, text: str) -> _Given:
        match = NUMBER.fullmatch(text)
        if match and not is_structural(match["key"]):
            value: Any = text.partition("=")[2]
            leaf = Leaf.of(int(value) if match["whole"] else float(value))
            given = _Given(f"{match['key']}=", match["key"].lstrip("+"), leaf)
        else:
            parsed, _ = parse(spelled_out([text]), self.origin)
            given = self._from_override(text, parsed[0]) if parsed else _Given(text, "", None)
        self._read[text] = given
        return given

    def _from_override(self, text: str, override: Override) -> _Given:
        key, value = override.key_or_group, override.value()
        if is_group(override, self.config_dir):
            return _Given(text, "", None)
        is_value = not override.is_sweep_override() and not override.is_delete()
        is_ours = not key.startswith("hydra.") and not is_structural(key)
        if not is_value or not is_ours or not _is_plain(value):
            return _Given(text, key, None)
        kind = "list" if isinstance(value, list) else ""  # +key=[..] goes where +key=1 does not
        container = OmegaConf.to_container(OmegaConf.create({"value": value}))
        assert isinstance(container, dict)
        shape = f"{text.partition('=')[0]}={kind}"
        return _Given(shape, key, Leaf.of(container["value"]))

    def _sketch(self, family: Family, member: Member) -> Sketch:
        parent, name = (family.work_out(part, member.leaves) for part in (_parent, _run_name))
        run = parent / layout.safe_name(identity.run_name(name, member.run_id))
        measured = tuple([family.work_out(measure, member.leaves) for measure in self.measures])
        return Sketch(member.run_id, run, measured)


def _parent(raw: Mapping[str, Any]) -> Path:
    """The directory above the run's own."""
    optimizer = raw["optimizer"]["optimizer_params"]["name"]
    names = (raw["model"]["name"], raw["data"]["name"], optimizer)
    return layout.run_dir(raw["paths"]["output_dir"], *names, "x").parent


def _run_name(raw: Mapping[str, Any]) -> str:
    return raw["paths"]["run_name"]


def _overlap(keys: Sequence[str], changing: Sequence[str]) -> bool:
    """Whether a key that changes is said twice, or stands inside another: their order counts."""
    nodes = [f"{key}." for key in keys if key]
    return any(
        sum(node.startswith(f"{path}.") or f"{path}.".startswith(node) for node in nodes) > 1
        for path in changing
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return "${" not in value and value != "???"
    return value is None or isinstance(value, bool | int | float)
