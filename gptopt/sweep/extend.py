"""A sweep file with more values where the best one was the last that was tried."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptopt import files
from gptopt.sweep import strict_json
from gptopt.sweep.block import EACH, STAGES, TOP
from gptopt.sweep.edges import Best, Edge
from gptopt.sweep.generators import Point, plain
from gptopt.sweep.keys import aliases
from gptopt.sweep.parts import Part, Sweep
from gptopt.sweep.stages import SEEDS

ROUNDS = 2


def extended_file(file: Path) -> Path:
    """Where the extension of a file goes: x.json -> x.extended.json -> x.extended-2.json.

    Raises:
        ValueError: It was extended ``ROUNDS`` times, or the name is taken.
    """
    match = re.fullmatch(r"(.+)\.extended(?:-(\d+))?", file.stem)
    name, number = (match[1], int(match[2] or 1)) if match else (file.stem, 0)
    if number >= ROUNDS:
        raise ValueError(
            f"{file} was extended {ROUNDS} times, and its best value still lies at an edge: choose"
            " a wider grid by hand."
        )
    found = file.with_name(f"{name}.extended{f'-{number + 1}' if number else ''}.json")
    if found.exists():
        raise ValueError(f"{found} exists, and nothing is overwritten: submit it, or delete it.")
    return found


def extend(sweep: Sweep, found: Sequence[Best]) -> Path:
    """Writes the sweep file with blocks for what continues the axes at whose end a best value lies.

    A new point has all other values, and the seeds, of the best one. Of several stages the first
    one with an edge is extended: those behind it go on from what it then finds.

    Args:
        sweep: What was run; its file is left as it is.
        found: The best settings, at least one of them with an edge that can be extended.

    Returns:
        The new file, beside the old one.

    Raises:
        ValueError: As ``extended_file``.
    """
    file = extended_file(sweep.file)
    document = copy.deepcopy(strict_json.read(sweep.file))
    names = {} if '"$alias"' in json.dumps(document) else {v: k for k, v in aliases().items()}
    flagged = [best for best in found if any(edge.beyond for edge in best.edges)]
    earliest = min(best.stage for best in flagged)
    at_top = []
    for best in (best for best in flagged if best.stage == earliest):
        part = sweep.parts[best.part]
        known = _constants(part, best.stage) if part.later else set()
        points = [
            {key: value for key, value in point.items() if key not in known}
            for point in best.setting.points
        ]
        blocks = [_block(points, edge, names) for edge in best.edges if edge.beyond]
        if not part.later:
            at_top += blocks
            continue
        place = document
        for step in part.place:
            place = place[step]
        stages = place[STAGES]
        stages[best.stage - 1] = _with_blocks(stages[best.stage - 1], blocks)
    if at_top:
        document = _with_blocks(document, at_top)
    files.write(file, _text(document))
    return file


def _constants(part: Part, stage: int) -> set[str]:
    """What is said around the stages, once for all of them."""
    rows = list(part.points())
    return {
        key
        for key, value in rows[0].items()
        if plain(key) in part.apart(stage) and all(row.get(key) == value for row in rows)
    }


def _text(document: Any) -> str:
    """JSON with a line for each key, and lists of plain values in one."""
    text = json.dumps(document, indent=1) + "\n"
    inner = re.compile(r"\[\n\s*([^][{}]*?)\n\s*\]")  # no text holds a bare line break
    return inner.sub(lambda match: "[" + re.sub(r",\n\s*", ", ", match[1]) + "]", text)


def _with_blocks(block: dict[str, Any], more: list[dict[str, Any]]) -> dict[str, Any]:
    """The union of a block and ``more``; its ``$top`` stays in front."""
    top = {TOP: block[TOP]} if TOP in block else {}
    own = {key: value for key, value in block.items() if key != TOP}
    listed = own[EACH] if own.keys() == {EACH} else [own]
    return {**top, EACH: [*listed, *more]}


def _block(points: Sequence[Point], edge: Edge, names: Mapping[str, str]) -> dict[str, Any]:
    """A block for the values beyond an edge, with all else as in the best setting."""
    block: dict[str, Any] = {}
    varied: list[dict[str, list[Any]]] = [{}, {}]  # what goes together: the axis, the seeds
    for key, value in points[0].items():
        path, name = plain(key), names.get(key, key)
        if path in edge.beyond:
            varied[0][name] = edge.beyond[path]
        elif path in SEEDS and len(points) > 1:
            varied[1][name] = [point[key] for point in points]
        else:
            block[name] = [value] if isinstance(value, list) else value
    pairs = [values for values in varied if len(values) > 1]
    for values in varied:
        if len(values) == 1:
            block |= values
    return block | ({"$zip": pairs} if pairs else {})
