r"""Values of a sweep file -> override strings that Hydra reads back as the same values.

Strings are always quoted, so that JSON's types win: "1e-3", "null" and "a,b" stay strings. In
single quotes Hydra takes every character as it is, but for a quote and the backslashes before
it: \' is a quote, \\' a backslash and the end. So backslashes are doubled there, and only there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

INTERPOLATION = re.compile(r"\$\{\.*[A-Za-z_][\w-]*(\.[\w-]+)*\}", re.ASCII)
"""``${optimizer.optimizer_params.lr}``: the value of another key. Resolvers are no such thing."""


def overrides(point: Mapping[str, Any], groups: Collection[str]) -> list[str]:
    """The overrides of one run: config groups first, then values, both in sorted order.

    Args:
        point: Group or dotted path (with ``+`` where it adds) to value.
        groups: The names that are config groups.
    """
    keys = _in_order(tuple(point), tuple(groups))
    return [override(key, point[key]) for key in keys]


@lru_cache
def _in_order(keys: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
    return sorted(keys, key=lambda key: (key.lstrip("+") not in groups, key.lstrip("+")))


def override(key: str, value: Any) -> str:
    """``key=value`` in Hydra's grammar."""
    return f"{key}={text_of(value)}"


def text_of(value: Any) -> str:
    """A JSON value (not an object) as Hydra's grammar writes it.

    Raises:
        ValueError: It cannot be an override; see ``problem_of``.
    """
    if type(value) in (int, float):
        return repr(value)
    if (message := problem_of(value)) is not None:
        raise ValueError(message)
    if isinstance(value, list):
        return f"[{','.join(text_of(item) for item in value)}]"
    if isinstance(value, str):
        return quote(value)
    return {None: "null", True: "true", False: "false"}[value]


def quote(text: str) -> str:
    r"""``text`` in single quotes: it's -> 'it\'s'."""
    text = re.sub(r"\\+(?='|\Z)", lambda run: run.group() * 2, text)
    return "'" + text.replace("'", r"\'") + "'"


def problem_of(value: Any) -> str | None:
    """Why a JSON value cannot be the value of an override, or None."""
    if isinstance(value, list):
        return next((message for item in value if (message := problem_of(item))), None)
    if isinstance(value, dict):
        return "an object cannot stand inside a value."
    return _problem_of_text(value) if isinstance(value, str) else None


@lru_cache(maxsize=4096)
def _problem_of_text(value: str) -> str | None:
    if not value.isprintable():
        return f"{value!a}: it takes one line of printable text."
    if value == "???":
        return "'???' means a missing value to Hydra; give the value."
    rest = INTERPOLATION.sub("", value)
    if "${" in rest or re.search(r"\\\$\{", value):
        return (
            f"{value!r}: only the value of another key can be inserted, as in"
            " '${optimizer.optimizer_params.lr}'; no resolvers, no environment."
        )
    return None
