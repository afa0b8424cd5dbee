"""JSON as it is meant: a key said twice, NaN, a number too large, a byte-order mark are errors.

Python's own reader keeps the last of two equal keys and says nothing, and takes NaN. What it
cannot read at all is told with line and column; the rest with a JSON pointer (RFC 6901).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from gptopt.config.problems import ConfigError, Problem

TRAILING = re.compile(r",\s*([\]}])")


class Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were said more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = sorted({name for name in names if names.count(name) > 1})


class NotFinite(str):
    """The text of a number that is none: NaN, Infinity, 1e400."""


def read(file: Path) -> Any:
    """The value in ``file``, with every object as ``Object``.

    Raises:
        ConfigError: It cannot be read, is not UTF-8 or not JSON; or with all repeated keys and
            numbers that are not finite.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([Problem("", f"{file}: {error.strerror or error}.")]) from None
    except UnicodeDecodeError as error:
        message = f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8."
        raise ConfigError([Problem("", message)]) from None
    if text.startswith("\ufeff"):
        message = f"{file}:1:1: a byte-order mark; save the file as UTF-8 without it."
        raise ConfigError([Problem("", message)])
    try:
        value = json.loads(
            text, object_pairs_hook=Object, parse_constant=NotFinite, parse_float=_number
        )
    except json.JSONDecodeError as error:
        raise ConfigError([Problem("", f"{file}:{_words(error)}.")]) from None
    except (ValueError, RecursionError) as error:  # 5,000 digits, 5,000 brackets
        raise ConfigError([Problem("", f"{file}: {error}.")]) from None
    problems = _problems(value, "", file)
    if problems:
        raise ConfigError(problems)
    return value


def pointer(*parts: str | int) -> str:
    """The JSON pointer of a place: ("$each", 0, "lr") -> /$each/0/lr."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _words(error: json.JSONDecodeError) -> str:
    """Line, column and what is wrong there; Python has no word for a comma too many."""
    comma = error.doc.rfind(",", 0, error.pos + 1)
    trailing = TRAILING.match(error.doc, comma) if comma >= 0 else None
    is_inside_text = error.msg.startswith("Invalid")  # a line break, an escape
    if trailing is None or error.pos >= trailing.end() or is_inside_text:
        return f"{error.lineno}:{error.colno}: {error.msg}"
    at = json.JSONDecodeError("", error.doc, comma)
    return f"{at.lineno}:{at.colno}: a comma before the closing {trailing[1]!r}; remove it"


def _number(text: str) -> float | NotFinite:
    value = float(text)
    return value if math.isfinite(value) else NotFinite(text)


def _problems(value: Any, place: str, file: Path) -> list[Problem]:
    where = f"{file} {place}" if place else str(file)
    if isinstance(value, NotFinite):
        return [Problem(place, f"{value} is no finite number.", where)]
    if isinstance(value, Object):
        found = [
            Problem(place, f"the key {name!r} stands here more than once.", where)
            for name in value.repeated
        ]
        children: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        found, children = [], list(enumerate(value))
    else:
        return []
    for name, child in children:
        found += _problems(child, place + pointer(name), file)
    return found
