"""One attempt's metrics file -> its rows, column by column.

A line is read exactly (``parse``) or, where all are plain rows of kinds that were met before,
together with its whole file, which is ten times as fast and gives the same numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Union

import msgspec
import numpy as np
from numpy.typing import NDArray

START, STOP, DIAGNOSTICS = "start", "stop", "diagnostics"
MOST_KINDS, MOST_NAMES = 16, 256
"""Rows of further kinds, or with more names, are read one by one."""
_MARKS = {START, STOP, DIAGNOSTICS}
_NONFINITE = "nonfinite"
_PLAIN = {int, float, type(None)}
_LARGEST = 2**63
_Step = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST - 1)]


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
        measured = row | row.get(_NONFINITE, {})
        for name in ("event", "step", _NONFINITE):
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


def read_rows(data: bytes, attempt: int) -> Rows:
    """The rows that ``data`` of a metrics file holds.

    Args:
        data: Complete lines, each with its newline.
        attempt: The attempt that wrote them.
    """
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    found = _together(data, ends) or _one_by_one(data)
    numbers = {kind: number for number, kind in enumerate(_kinds.names)}
    kinds = np.array([numbers.get(type(row), -1) for row in found], dtype=np.int64)
    odd = np.flatnonzero(kinds < 0).tolist()
    exact = {place: parse(data[ends[place - 1] + 1 if place else 0 : ends[place]]) for place in odd}
    marks = {place: row for place, row in exact.items() if row and row["event"] in _MARKS}
    others = {place: row for place, row in exact.items() if row and place not in marks}
    groups = {kind: np.flatnonzero(kinds == number) for kind, number in numbers.items()}
    groups = {kind: places for kind, places in groups.items() if len(places)}
    is_row = kinds >= 0
    is_row[list(others)] = True
    slot = is_row.cumsum() - 1
    count = int(is_row.sum())
    first = int(is_row.argmax()) if count else len(found)
    rows = Rows(
        attempt=np.full(count, attempt),
        event=np.empty(count, dtype=np.int64),
        step=np.empty(count, dtype=np.int64),
        values={},
        events=[_kinds.events[kind] for kind in groups],
        lost=sum(row is None for row in exact.values()),
    )
    for number, (kind, places) in enumerate(groups.items()):
        _fill(rows, number, _kinds.names[kind], [found[p] for p in places], slot[places])
    for place, row in others.items():
        _set(rows, slot[place], row)
    for place, mark in marks.items():
        event, step = mark.pop("event"), mark.pop("step")
        if event == START:
            rows.starts.append(mark["time"])
        elif event == DIAGNOSTICS:
            rows.diagnostics += [(attempt, step, *measured) for measured in mark.items()]
        if rows.first is None and place < first:
            rows.first = event, step
    if rows.first is None and count:
        rows.first = rows.events[rows.event[0]], int(rows.step[0])
    return rows


class _Mark(msgspec.Struct, tag_field="event"):
    """A line that is no row of measurements; of it nothing is kept but that it is there."""


class _Kinds:
    """The kinds of plain rows that were met, and a decoder of exactly these and of marks.

    A decoder that knows the names is twice as fast as one that makes a dictionary of each row,
    and tells apart what is no number.

    Attributes:
        events, names: By kind, what ``event`` says, and the names of the numbers in order.
    """

    def __init__(self) -> None:
        self.events: dict[type, str] = {}
        self.names: dict[type, list[str]] = {}
        self._decode_with([])

    def _decode_with(self, kinds: list[type]) -> None:
        marks = [msgspec.defstruct("Mark", [], bases=(_Mark,), tag=mark) for mark in _MARKS]
        decoder = msgspec.json.Decoder(Union[(*marks, *kinds)])  # noqa: UP007
        self.decode: Callable[[bytes], Any] = decoder.decode
        self.decode_lines: Callable[[bytes], list[Any]] = decoder.decode_lines

    def learn(self, line: bytes) -> bool:
        """Whether ``line`` is a plain row with a name, or of a kind, that is new."""
        try:
            row = msgspec.json.decode(line)
            event, names = row.pop("event"), [name for name in row if name != "step"]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return False
        if not isinstance(event, str) or event in _MARKS or "step" not in row or _NONFINITE in row:
            return False
        if not {type(row[name]) for name in names} <= _PLAIN:
            return False
        met = {self.events[kind]: self.names[kind] for kind in self.events}
        known = met.get(event, [])
        new = [name for name in names if name not in known]
        if (event in met and not new) or len(known) + len(new) > MOST_NAMES:
            return False
        met[event] = known + new
        if len(met) > MOST_KINDS:
            return False
        kinds = {_struct(*kind): kind for kind in met.items()}
        self.events = {struct_: event for struct_, (event, _) in kinds.items()}
        self.names = {struct_: names for struct_, (_, names) in kinds.items()}
        self._decode_with(list(kinds))
        return True


_kinds = _Kinds()


def _struct(event: str, names: list[str]) -> type[msgspec.Struct]:
    fields = [f"field_{number}" for number in range(len(names))]
    return msgspec.defstruct(
        "Row",
        [("step", _Step), *((field, float | None, None) for field in fields)],
        rename=dict(zip(fields, names, strict=True)),
        tag_field="event",
        tag=event,
        forbid_unknown_fields=True,
        gc=False,
    )


def _together(data: bytes, ends: NDArray[np.int64]) -> list[Any]:
    """What ``_one_by_one`` gives, by one call; empty where some line is not of a known kind."""
    characters = np.frombuffer(data, np.uint8)
    # What a newline between a closing and an opening brace parts cannot be one object.
    closed = (characters[ends - 1] == ord("}")).all()
    if not closed or not (characters[ends[:-1] + 1] == ord("{")).all():
        return []
    try:
        found = _kinds.decode_lines(data)
    except (ValueError, RecursionError):
        return []
    return found if len(found) == len(ends) else []  # a line may hold several objects


def _one_by_one(data: bytes) -> list[Any]:
    """Each line as a plain row of a known kind, as a mark, or as None: it is read exactly."""
    found: list[Any] = []
    for line in data.split(b"\n")[:-1]:
        try:
            found.append(_kinds.decode(line))
        except (ValueError, RecursionError):
            if _kinds.learn(line):
                return _one_by_one(data)
            found.append(None)
    return found


def _fill(
    rows: Rows, event: int, names: list[str], group: list[Any], places: NDArray[np.int64]
) -> None:
    """Puts rows of one kind, with these ``names``, in their places."""
    steps, *columns = zip(*map(msgspec.structs.astuple, group), strict=True)
    rows.event[places] = event
    rows.step[places] = steps
    for name, column in zip(names, columns, strict=True):
        try:  # five times as fast as numpy's own conversion
            numbers = np.frombuffer(struct.pack(f"{len(column)}d", *column))
        except struct.error:  # a None among them
            if column.count(None) == len(column):
                continue
            numbers = np.array(column, dtype=np.float64)
        _column(rows, name)[places] = numbers


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
