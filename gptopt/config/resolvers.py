"""Interpolations of the YAML files: ``${div:8,2}`` ``${eval:...}`` ``${run_hash:}`` and so on."""

from __future__ import annotations

import ast
import math
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptopt.config import identity

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "min": min,
    "max": max,
    "round": round,
    "abs": abs,
}
MAX_EXPONENT = 64


def evaluate(expression: str) -> Any:
    """The value of an arithmetic expression; nothing else is understood.

    Numbers, ``+ - * / // % **``, one comparison, ``a if b else c`` and the functions int,
    float, min, max, round, abs. It is parsed, never run.

    Raises:
        ValueError: Anything else, with the part that was not understood.
    """
    text = str(expression)
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, TypeError, RecursionError) as error:
        raise ValueError(f"eval: {text!r} is not arithmetic: {error}") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, (int, float)):
            return value
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            exponent = _value(right)
            if abs(exponent) > MAX_EXPONENT:
                raise ValueError(f"eval: an exponent of {exponent} is beyond {MAX_EXPONENT}")
            return _value(left) ** exponent
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(operand))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body) if _value(test) else _value(orelse)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(_value, args))
    raise ValueError(f"eval: {ast.unparse(node)!r} is not arithmetic")


def divide(dividend: float, divisor: float) -> int | float:
    """``dividend / divisor``, whole where it comes out even."""
    quotient = dividend / divisor
    return int(quotient) if math.isfinite(quotient) and quotient.is_integer() else quotient


def by_value(number: Any) -> Any:
    """``number`` written in one way: 0.0 is 0, so that one run has one name."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def first(*values: Any) -> Any:
    """The first value that is not null, or null."""
    return next((value for value in values if value is not None), None)


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_count() -> int:
    """GPUs this process may use, counted without importing torch; 0 on a CPU machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def run_hash(*, _root_: DictConfig) -> str:
    """The first digits of the run's identity; ends every run name."""
    nodes = (*identity.IDENTITY_NODES, "checkpoint", "logging")
    config = {node: OmegaConf.to_container(_root_[node], resolve=True) for node in nodes}
    return identity.run_id(config)[: identity.DIGITS]


def register() -> None:
    """Makes the resolvers known to OmegaConf; safe to repeat."""
    known: dict[str, Callable[..., Any]] = {
        "eval": evaluate,
        "div": divide,
        "first": first,
        "num": by_value,
        "cpu_count": cpu_count,
        "device_count": device_count,
        "run_hash": run_hash,
    }
    for name, resolver in known.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
