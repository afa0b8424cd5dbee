"""One attempt's metrics file -> its rows, column by column.

A line is read exactly (``parse``) or, where lines are alike and plain, together with the
others of its kind, which is ten times as fast and gives the same numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

START, STOP, DIAGNOSTICS = "start", "stop", "diagnostics"
_PLAIN = {int, float, type(None)}
_LARGEST = 2**63


@dataclass
class Rows:
    """The measurements of one attempt, or of several that were merged.

    Attributes:
        attempt, step: int64, shape (n,).
        event: Place in ``events``, int64, shape (n,).
        events: Names of the kinds of rows.
        values: float64 of shape (n,) by name; NaN where a row has no such value.
        measured_nan: By name, where a NaN is what was measured; absent when nowhere.
        first: Kind and step of the first line that could be read, marks of start included.
        starts: Unix times of the starts; None where a start does not tell.
        diagnostics: Attempt, step, name and value of each diagnostic; not among the rows.
        lost: Lines that are no rows.
    """

    attempt: NDArray[np.int64]
    event: NDArray[np.int64]
    step: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    events: list[str]
    measured_nan: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    first: tuple[str, int] | None = None
    starts: list[float | None] = field(default_factory=list)
    diagnostics: list[tuple[int, int, str, float]] = field(default_factory=list)
    lost: int = 0

    def __len__(self) -> int:
        return len(self.step)

    def take(self, kept: NDArray[np.bool_]) -> Rows:
        """The rows where ``kept`` holds."""
        if kept.all():
            return self
        return Rows(
            self.attempt[kept],
            self.event[kept],
            self.step[kept],
            {name: column[kept] for name, column in self.values.items()},
            self.events,
            {name: where[kept] for name, where in self.measured_nan.items()},
        )

    def last(self, name: str) -> float | None:
        """The last value that was measured; infinite when it was not finite."""
        if name not in self.values:
            return None
        column = self.values[name]
        known = ~np.isnan(column)
        if name in self.measured_nan:
            known |= self.measured_nan[name]
        if not known.any():
            return None
        value = float(column[len(known) - 1 - int(known[::-1].argmax())])
        return value if np.isfinite(value) else float("inf")


def parse(line: bytes) -> dict[str, Any] | None:
    """One row of metrics as numbers; None for anything else that a line may hold.

    A start or a stop keeps its step and its time. Null is the value that the row's
    ``nonfinite`` names, or else one that was not measured. Of diagnostics, nested objects
    are flattened.
    """
    try:
        row = json.loads(line)
        event, step = row["event"], row["start_step" if row["event"] == START else "step"]
        if not isinstance(event, str) or type(step) is not int or not 0 <= step < _LARGEST:
            return None
        if event in (START, STOP):
            return {"event": event, "step": step, "time": number(row.get("time"))}
        measured = row | row.get("nonfinite", {})
        for name in ("event", "step", "nonfinite"):
            measured.pop(name, None)
        if event == DIAGNOSTICS:
            measured = _flat(measured)
        numbers = {name: float(value) for name, value in measured.items() if value is not None}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        return None
    return {"event": event, "step": step} | numbers


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}/") if nested else {f"{prefix}{name}": value}
    return flat


def number(value: Any) -> int | float | None:
    """``value`` when it is a number that fits a table."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if usable and abs(value) < _LARGEST else None


def read_rows(lines: Sequence[bytes], attempt: int) -> Rows:
    """The rows that ``lines`` of a metrics file hold, each line without its newline.

    Args:
        lines: Complete lines.
        attempt: The attempt that wrote them.
    """
    kinds, odd = _group(lines)
    events = list(dict.fromkeys(event for event, *_ in kinds))
    rows = Rows(
        attempt=np.full(len(lines), attempt),
        event=np.full(len(lines), -1),
        step=np.full(len(lines), -1),
        values={},
        events=events,
    )
    for (event, *names), (places, group) in kinds.items():
        if not _fill(rows, events.index(event), names, np.array(places), group):
            odd += places
    marks: dict[int, tuple[str, int]] = {}
    for place in sorted(odd):
        exact = parse(lines[place])
        if exact is None:
            rows.lost += 1
        elif exact["event"] in (START, STOP, DIAGNOSTICS):
            event, step = exact.pop("event"), exact.pop("step")
            marks[place] = event, step
            if event == START:
                rows.starts.append(exact["time"])
            elif event == DIAGNOSTICS:
                rows.diagnostics += [(attempt, step, *measured) for measured in exact.items()]
        else:
            _set(rows, place, exact)
    complete = rows.step >= 0
    first = int(complete.argmax()) if complete.any() else len(lines)
    mark = min(marks, default=len(lines))
    kept = rows.take(complete)
    kept.lost, kept.starts, kept.diagnostics = rows.lost, rows.starts, rows.diagnostics
    if mark < first:
        kept.first = marks[mark]
    elif first < len(lines):
        kept.first = rows.events[rows.event[first]], int(rows.step[first])
    return kept


Group = dict[tuple[str, ...], tuple[list[int], list[dict[str, Any]]]]


def _group(lines: Sequence[bytes]) -> tuple[Group, list[int]]:
    """Measurements by kind and names, and the places of lines that are read one by one."""
    groups: Group = {}
    odd = []
    for place, line in enumerate(lines):
        try:
            row = orjson.loads(line)
            key = (row["event"], *row)
            group = groups.get(key)
        except (ValueError, TypeError, KeyError):
            odd.append(place)
            continue
        if group is None:
            group = groups[key] = [], []
        group[0].append(place)
        group[1].append(row)
    for key in list(groups):
        plain = isinstance(key[0], str) and key[0] not in (START, STOP, DIAGNOSTICS)
        if not plain or "step" not in key[1:] or "nonfinite" in key[1:]:
            odd += groups.pop(key)[0]
    return groups, odd


def _fill(
    rows: Rows,
    event: int,
    names: list[str],
    places: NDArray[np.int64],
    group: list[dict[str, Any]],
) -> bool:
    """Puts rows of one kind in their places, unless one of them holds what is no number."""
    columns: dict[str, NDArray[np.float64]] = {}
    steps = np.zeros(0, dtype=np.int64)
    for name, column in zip(names, zip(*map(dict.values, group), strict=True), strict=True):
        if name == "event":
            continue
        types = set(map(type, column))
        if name == "step":
            if types != {int} or not 0 <= min(column) <= max(column) < _LARGEST:
                return False
            steps = _packed(column, "q")
        elif not types <= _PLAIN:
            return False
        elif types != {type(None)}:
            packs = type(None) not in types
            columns[name] = _packed(column, "d") if packs else np.array(column, dtype=np.float64)
            if np.isinf(columns[name]).any():  # too many digits: told apart by the exact reader
                return False
    rows.event[places] = event
    rows.step[places] = steps
    for name, numbers in columns.items():
        _column(rows, name)[places] = numbers
    return True


def _packed(column: Sequence[float], kind: Literal["d", "q"]) -> NDArray:
    # Five times as fast as numpy's own conversion.
    return np.frombuffer(struct.pack(f"{len(column)}{kind}", *column), dtype=kind)


def _set(rows: Rows, place: int, exact: dict[str, Any]) -> None:
    event = exact.pop("event")
    if event not in rows.events:
        rows.events.append(event)
    rows.event[place], rows.step[place] = rows.events.index(event), exact.pop("step")
    for name, value in exact.items():
        _column(rows, name)[place] = value
        if value != value:
            empty = np.zeros(len(rows), dtype=bool)
            rows.measured_nan.setdefault(name, empty)[place] = True


def _column(rows: Rows, name: str) -> NDArray[np.float64]:
    if name not in rows.values:
        rows.values[name] = np.full(len(rows), np.nan)
    return rows.values[name]


def merge(attempts: Sequence[Rows]) -> tuple[Rows, dict[int, int]]:
    """The measurements of a run that was interrupted and resumed, as if it never was.

    Of each attempt, rows up to the first step of every later attempt are kept.

    Args:
        attempts: Oldest first.

    Returns:
        The rows in order, and how many rows of which place in ``attempts`` a later one
        repeated.
    """
    kept: list[Rows] = []
    diagnostics: list[tuple[int, int, str, float]] = []
    superseded: dict[int, int] = {}
    horizon = _LARGEST - 1
    for place in reversed(range(len(attempts))):
        rows = attempts[place]
        valid = rows.take(rows.step <= horizon)
        diagnostics = [row for row in rows.diagnostics if row[1] <= horizon] + diagnostics
        if len(valid) < len(rows):
            superseded[place] = len(rows) - len(valid)
        kept.insert(0, valid)
        if rows.first is not None:
            # An attempt whose first row was lost took over before its first row that is left.
            event, step = rows.first
            horizon = min(horizon, step - (event != START))
    return replace(_concatenate(kept), diagnostics=diagnostics), superseded


def _concatenate(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    events = list(dict.fromkeys(event for part in parts for event in part.events))
    codes = [np.array([events.index(e) for e in part.events], dtype=np.int64) for part in parts]
    empty = np.zeros(0, dtype=np.int64)
    names = dict.fromkeys(name for part in parts for name in part.values)
    odd = dict.fromkeys(name for part in parts for name in part.measured_nan)
    return Rows(
        attempt=np.concatenate([empty, *(part.attempt for part in parts)]),
        event=np.concatenate(
            [empty, *(code[part.event] for code, part in zip(codes, parts, strict=True))]
        ),
        step=np.concatenate([empty, *(part.step for part in parts)]),
        values={
            name: np.concatenate(
                [part.values.get(name, np.full(len(part), np.nan)) for part in parts]
            )
            for name in names
        },
        events=events,
        measured_nan={
            name: np.concatenate(
                [part.measured_nan.get(name, np.zeros(len(part), dtype=bool)) for part in parts]
            )
            for name in odd
        },
    )
