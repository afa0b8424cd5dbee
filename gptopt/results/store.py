"""Rows of metrics on disk: a file of numbers per column, only ever appended to.

A column lies in one piece, so a table of runs that were written in its order is the files
themselves, mapped into memory: nothing is copied, and what is never looked at is never read.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gptopt.results.columns import DIAGNOSTIC_COLUMNS, METRIC_COLUMNS
from gptopt.results.events import Rows

_TYPES = {"attempt": np.int32, "event": np.int32, "name": np.int32, "step": np.int64}
"""Of columns of whole numbers; all others are float64."""


MOST_COLUMNS = 64
"""Each is an open file, and another one once it is mapped; a process may have 1,024 or so."""


class Part(NamedTuple):
    """Where the rows of one run are: ``rows`` of them from ``start`` on, in ``columns``."""

    start: int
    rows: int
    columns: tuple[str, ...]


@dataclass
class Sheet:
    """A table that grows.

    Args:
        create: Opens a file for a column, by its number.
        rows: In use; what lies behind was left by a writer that died.
        files: By name of the column, open for reading, and for writing where rows are added.
        words: Texts that rows hold by their place in this list: kinds of rows, or names of
            diagnostics.
    """

    create: Callable[[int], BinaryIO]
    rows: int = 0
    files: dict[str, BinaryIO] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = {word: place for place, word in enumerate(self.words)}
        self._mapped: dict[str, NDArray] = {}
        for name, file in self.files.items():
            end = self.rows * _type(name).itemsize
            if os.fstat(file.fileno()).st_size < end:
                raise ValueError(f"{file.name} is cut off")
            file.seek(end)

    def append(self, columns: Mapping[str, NDArray]) -> Part:
        """Adds the rows of one run; returns where they are, and which columns had room."""
        new = [name for name in columns if name not in self.files]
        left_out = new[max(0, MOST_COLUMNS - len(self.files)) :]
        kept = {name: columns[name] for name in columns if name not in left_out}
        part = Part(self.rows, len(columns["step"]), tuple(kept))
        if part.rows:
            self._write(kept, part.rows)
        return part

    def _write(self, columns: Mapping[str, NDArray], rows: int) -> None:
        for name in [name for name in columns if name not in self.files]:
            self.files[name] = self.create(len(self.files))
            self.files[name].write(_unknown(name, self.rows).data)
        for name, file in self.files.items():
            numbers = columns[name] if name in columns else _unknown(name, rows)
            file.write(np.ascontiguousarray(numbers, _type(name)).data)
        self.rows += rows
        self._mapped.clear()

    def copy(self, part: Part, source: Sheet) -> Part:
        """Adds rows of ``source``, which has the same words; returns where they are."""
        rows = slice(part.start, part.start + part.rows)
        return self.append({name: source.column(name)[rows] for name in part.columns})

    def places(self, words: Sequence[str]) -> NDArray[np.int32]:
        """The place of each word, which is made where there is none."""
        for word in words:
            if word not in self._places:
                self._places[word] = len(self.words)
                self.words.append(word)
        return np.array([self._places[word] for word in words], dtype=np.int32)

    def column(self, name: str) -> NDArray:
        """All rows of a column, mapped: read when they are looked at.

        What is written into them stays in this process.
        """
        if name not in self._mapped:
            self.files[name].flush()
            file, size = self.files[name].fileno(), self.rows * _type(name).itemsize
            memory = mmap.mmap(file, size, access=mmap.ACCESS_COPY)
            self._mapped[name] = np.frombuffer(memory, _type(name))
        return self._mapped[name]

    def read(self, name: str, start: int, room: NDArray) -> None:
        """Fills ``room`` with rows of a column from ``start`` on.

        Mapping them first would cost as much again.

        Raises:
            OSError: The file ends before.
        """
        file, offset = self.files[name], start * room.itemsize
        file.flush()
        left = room.data.cast("B")
        while left:
            count = os.preadv(file.fileno(), [left], offset)  # 2 GiB at most
            if not count:
                raise OSError(f"{file.name}: shorter than its index says")
            left, offset = left[count:], offset + count

    def sync(self) -> None:
        """Returns once everything is on disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())


@dataclass
class Store:
    """The rows of many runs: their measurements, and their diagnostics."""

    metrics: Sheet
    diagnostics: Sheet

    @classmethod
    def temporary(cls) -> Store:
        """One that vanishes with this process."""
        return cls(*(Sheet(lambda _: tempfile.TemporaryFile()) for _ in range(2)))

    def sync(self) -> None:
        """Returns once everything is on disk."""
        self.metrics.sync()
        self.diagnostics.sync()

    def append(self, rows: Rows) -> tuple[Part, Part]:
        """Adds the measurements and the diagnostics of one run; returns where they are."""
        event = self.metrics.places(rows.events)[rows.event]
        metrics = self.metrics.append(
            {"attempt": rows.attempt, "event": event, "step": rows.step, **rows.values}
        )
        attempts, steps, names, values = list(zip(*rows.diagnostics, strict=True)) or [()] * 4
        diagnostics = self.diagnostics.append(
            {
                "attempt": np.array(attempts, dtype=np.int32),
                "step": np.array(steps, dtype=np.int64),
                "name": self.diagnostics.places(names),
                "value": np.array(values, dtype=np.float64),
            }
        )
        return metrics, diagnostics


class Stored(NamedTuple):
    """The rows of one run in one table."""

    run_id: str
    sheet: Sheet
    part: Part


def metrics_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """The table of metrics, run by run in the order given."""
    return _table(stored, list(METRIC_COLUMNS), "event")


def diagnostics_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """The table of diagnostics, run by run in the order given."""
    return _table(stored, list(DIAGNOSTIC_COLUMNS), "name")


def _table(stored: Sequence[Stored], standard: list[str], text: str) -> pd.DataFrame:
    filled = [part for part in stored if part.part.rows]
    kinds = dict.fromkeys(part.part.columns for part in filled)
    names = dict.fromkeys([*standard, *(name for columns in kinds for name in columns)])
    stretches = list(_stretches(filled))
    columns = {name: _column(stretches, name) for name in names if name not in ("run_id", text)}
    counts = [part.part.rows for part in stored]
    runs = np.repeat(np.arange(len(stored), dtype=_place_type(stored)), counts)
    run_ids = pd.Index([part.run_id for part in stored], dtype=str)
    texts = {
        "run_id": pd.Categorical.from_codes(runs, run_ids, validate=False),
        text: _texts(stretches, text),
    }
    return pd.DataFrame({name: texts.get(name, columns.get(name)) for name in names}, copy=False)


class _Stretch(NamedTuple):
    """Rows of several runs that follow each other in their sheet as they do in the table."""

    sheet: Sheet
    start: int
    stop: int

    def column(self, name: str) -> NDArray:
        if name not in self.sheet.files:
            return _unknown(name, self.stop - self.start)
        return self.sheet.column(name)[self.start : self.stop]

    def fill(self, name: str, room: NDArray) -> None:
        if name in self.sheet.files:
            self.sheet.read(name, self.start, room)
        else:
            room[:] = _unknown(name, len(room))


def _stretches(stored: Sequence[Stored]) -> Iterator[_Stretch]:
    current: _Stretch | None = None
    for _, sheet, part in stored:
        stop = part.start + part.rows
        if current and current.sheet is sheet and current.stop == part.start:
            current = current._replace(stop=stop)
            continue
        if current:
            yield current
        current = _Stretch(sheet, part.start, stop)
    if current:
        yield current


def _column(stretches: Sequence[_Stretch], name: str) -> NDArray:
    if len(stretches) == 1:
        return stretches[0].column(name)
    out = np.empty(sum(s.stop - s.start for s in stretches), _type(name))
    place = 0
    for stretch in stretches:
        rows = stretch.stop - stretch.start
        stretch.fill(name, out[place : place + rows])
        place += rows
    return out


def _texts(stretches: Sequence[_Stretch], name: str) -> pd.Categorical[str]:
    """The texts of a column, of which the sheets have the places; only those that occur."""
    sheets = {id(stretch.sheet): stretch.sheet for stretch in stretches}
    words = list(dict.fromkeys(word for sheet in sheets.values() for word in sheet.words))
    place = {word: number for number, word in enumerate(words)}
    parts = []
    used = np.zeros(len(words), bool)
    for stretch in stretches:
        codes = np.array([place[word] for word in stretch.sheet.words], _place_type(words))
        parts.append(codes[stretch.column(name)])
        used[parts[-1]] = True
    joined = np.concatenate([np.empty(0, _place_type(words)), *parts])
    kept = [word for word, occurs in zip(words, used, strict=True) if occurs]
    if len(kept) < len(words):
        joined = (np.cumsum(used, dtype=joined.dtype) - 1)[joined]
    return pd.Categorical.from_codes(joined, pd.Index(kept, dtype=str), validate=False)


def _type(name: str) -> np.dtype:
    return np.dtype(_TYPES.get(name, np.float64))


def _unknown(name: str, rows: int) -> NDArray:
    return np.full(rows, np.nan if name not in _TYPES else 0, _type(name))


def _place_type(things: Sequence[object]) -> np.dtype:
    """The smallest type of the places of ``things`` and of -1, as pandas keeps categories."""
    return np.min_scalar_type(-max(1, len(things)))
