"""Values against the types of the schema: what fits, and the words for what would."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from gptopt.config.problems import nearest, show
from gptopt.config.types import Cadence


class MismatchError(ValueError):
    """A value is not of its type; the text says what would be."""


class Unresolved:
    """Stands for a value whose interpolation failed, and of which nothing more is said."""


UNRESOLVED = Unresolved()


def coerce(value: Any, expected: Any) -> Any:
    """``value`` as a value of type ``expected`` (an int is welcome where a float is).

    Raises:
        MismatchError: It is none; the message says what is accepted.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any or value is UNRESOLVED:
        return value
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, arguments)
    if expected == Cadence:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if whole or (isinstance(value, float) and 0 < value < 1):
            return value
        raise MismatchError(describe(expected))
    if origin is Annotated:
        bounds = " ".join(str(bound) for bound in arguments[1:])
        try:
            inner = coerce(value, arguments[0])
        except MismatchError as error:
            raise MismatchError(f"{error} {bounds}") from None
        if not all(bound.holds(inner) for bound in arguments[1:]):
            raise MismatchError(describe(expected))
        return inner
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise MismatchError(describe(expected))
    if origin in (list, tuple):
        return _coerce_sequence(value, expected, origin, arguments)
    if origin is dict or expected is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise MismatchError("a mapping {key: value}")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is float and isinstance(value, float) and not math.isfinite(value):
        raise MismatchError("a finite number")
    if type(value) is expected:
        return value
    raise MismatchError(describe(expected))


def _coerce_union(value: Any, choices: tuple[Any, ...]) -> Any:
    reasons = []
    if value is None and type(None) in choices:
        return None
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return coerce(value, choice)
        except MismatchError as error:
            reasons.append(str(error))
    if type(None) in choices:
        reasons.append("null")
    raise MismatchError(" or ".join(reasons))


def _coerce_sequence(value: Any, expected: Any, origin: Any, arguments: tuple[Any, ...]) -> list:
    variadic = origin is list or arguments[1:] == (...,)
    if not isinstance(value, (list, tuple)) or (not variadic and len(value) != len(arguments)):
        raise MismatchError(describe(expected))
    kinds = [arguments[0]] * len(value) if variadic else list(arguments)
    items = []
    for item, kind in zip(value, kinds, strict=True):
        try:
            items.append(coerce(item, kind))
        except MismatchError as error:
            raise MismatchError(
                f"{describe(list)}, in which {show(item)} should be {error}"
            ) from None
    return items


def describe(expected: Any) -> str:
    """A type in the words of a message."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        list: "a list",
        dict: "a mapping {key: value}",
        type(None): "null",
    }
    if expected == Cadence:
        return "a whole number of steps, or a share of the run between 0 and 1"
    if origin is Annotated:
        return f"{describe(arguments[0])} {' '.join(str(a) for a in arguments[1:])}"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if dataclasses.is_dataclass(expected):
        return describe(dict)
    if origin is tuple and len(set(arguments)) == 1:
        return f"a list of {len(arguments)}, each {describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(describe(argument) for argument in arguments)}]"
    if origin is list:
        return f"a list, each {describe(arguments[0])}"
    return words.get(origin or expected, str(expected))


def hint(value: Any, expected: Any) -> str:
    """The valid value that a wrong one was probably meant to be, as a question."""
    others: list[Any] = [[value]]  # vector -> [vector]
    if isinstance(value, float) and value.is_integer():
        others.append(int(value))  # 1e9 -> 1000000000
    for other in others:
        with contextlib.suppress(MismatchError):
            coerce(other, expected)
            return f" Did you mean {other}?"
    choices = _literals(expected)
    given = value if isinstance(value, list) else [value]
    wrong = [word for word in given if isinstance(word, str) and word not in choices]
    return nearest(wrong[0], choices) if wrong else ""


def _literals(expected: Any) -> list[str]:
    if typing.get_origin(expected) is Literal:
        return [str(choice) for choice in typing.get_args(expected)]
    return [word for inner in typing.get_args(expected) for word in _literals(inner)]
