"""What is wrong with the points of a sweep, told once for all points that share it.

params/x.json /$each/1/lr, runs 3, 7, 9 (41 more): optimizer.optimizer_params.lr='abc': it ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import yaml

from gptopt import layout
from gptopt.config.problems import Problem
from gptopt.config.survey import Survey
from gptopt.sweep import params
from gptopt.sweep.parts import Sweep
from gptopt.sweep.strict_json import pointer

SHOWN_RUNS = 3
SHOWN_PLACES = 3
SHOWN_PER_KEY = 5
SHOWN = 50


def complaints(seen: Survey, sweep: Sweep, origin: str) -> list[Problem]:
    """The problems of all points, each with its place in the file, its runs and a hint.

    Args:
        seen: The points of a stage.
        sweep: The file that they come from.
        origin: What was said to be the source of its values.
    """
    places = _places(sweep)
    shown: dict[str, list[Problem]] = {}
    hidden: dict[str, set[int]] = {}
    for problem, runs in seen.problems.items():
        of_key = shown.setdefault(problem.key, [])
        if len(of_key) < SHOWN_PER_KEY and len(shown) <= SHOWN:
            hint = _hint(problem, sweep)
            where = _where(problem, runs, len(seen.sketches), places, origin)
            of_key.append(replace(problem, message=problem.message + hint, where=where))
        else:
            hidden.setdefault(problem.key, set()).update(runs)
    found = [problem for of_key in shown.values() for problem in of_key][:SHOWN]
    for key, indices in list(hidden.items())[:SHOWN_PER_KEY]:
        message = f"{key}: as wrong in {len(indices):,} runs with other values."
        found.append(Problem(key, message, origin))
    if len(shown) > SHOWN or len(hidden) > SHOWN_PER_KEY:
        found.append(Problem("", "there are more problems; these come first.", origin))
    if seen.not_looked_at:
        message = f"{seen.not_looked_at:,} further runs were not looked at."
        found.append(Problem("", message, origin))
    return found


def numbers(runs: Sequence[int]) -> str:
    """``run 3``, or ``runs 3, 7, 9 (41 more)``."""
    listed = ", ".join(map(str, runs[:SHOWN_RUNS]))
    more = f" ({len(runs) - SHOWN_RUNS:,} more)" if len(runs) > SHOWN_RUNS else ""
    return f"run{'s' * (len(runs) > 1)} {listed}{more}"


def _places(sweep: Sweep) -> dict[str, list[str]]:
    """Group or dotted path -> the JSON pointers at which the file speaks of it."""
    found: dict[str, dict[str, None]] = {}
    for part in sweep.parts:
        for leaf in [*part.first, *(leaf for later in part.later for leaf in later.leaves)]:
            for path, place in leaf.said.items():
                found.setdefault(path, {})[pointer(*place)] = None
    return {path: list(places) for path, places in found.items()}


def _where(
    problem: Problem,
    runs: Sequence[int],
    count: int,
    places: Mapping[str, list[str]],
    origin: str,
) -> str:
    said = places.get(problem.key) or places.get(problem.key.split(".")[0], [])
    is_from_file = problem.where == origin
    where = [problem.where]
    if is_from_file and said:
        more = f" ({len(said) - SHOWN_PLACES} more)" if len(said) > SHOWN_PLACES else ""
        where = [f"{origin} {' '.join(said[:SHOWN_PLACES])}{more}"]
    if len(runs) < count or (count == 1 and is_from_file):
        where.append(numbers(runs))
    return ", ".join(where)


def _hint(problem: Problem, sweep: Sweep) -> str:
    """What a sweep file has to do with it, where a problem is of the usual kinds."""
    choices = [
        choice
        for axes in sweep.grids
        for key, choices in axes.items()
        if key.lstrip("+") == problem.key and len(choices) > 1
        for choice in choices
    ]
    is_plain = bool(choices) and not any(isinstance(choice, list) for choice in choices)
    if is_plain and ("takes [" in problem.message or "takes a list" in problem.message):
        return f" A list is swept; for one list write [[{', '.join(map(str, choices[:4]))}]]."
    group, _, path = problem.key.partition(".")
    if "no such key" not in problem.message or group not in params.groups():
        return ""
    if owners := _owners(group, path):
        listed = ", ".join(owners[:4]) + (", ..." if len(owners) > 4 else "")
        return f" It is a key of {group}={listed}: put it into their own block of {params.EACH}."
    return ""


@cache
def _owners(group: str, path: str) -> list[str]:
    """The options of a group that have a key."""
    return [
        file.stem
        for file in sorted((layout.HYDRA_CONF / group).glob("*.yaml"))
        if _has(yaml.safe_load(file.read_text(encoding="utf-8")), path.split("."))
    ]


def _has(node: object, parts: Iterable[str]) -> bool:
    for part in parts:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
