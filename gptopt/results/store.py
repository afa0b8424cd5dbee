"""Rows of metrics on disk: a file of numbers per column, only ever appended to.

A column lies in one piece, so a table is the files themselves, mapped into memory: nothing is
copied but what fills the gaps that rows of no use leave, and what is never looked at is never
read.
"""

from __future__ import annotations

import functools
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
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

    def copy(self, part: Part, columns: Mapping[str, NDArray]) -> Part:
        """Adds rows of a sheet with the same words, given its ``columns``; returns where."""
        rows = slice(part.start, part.start + part.rows)
        return self.append({n: columns[n][rows] for n in part.columns}) if part.rows else part

    def places(self, words: Sequence[str]) -> NDArray[np.int32]:
        """The place of each word, which is made where there is none."""
        for word in words:
            if word not in self._places:
                self._places[word] = len(self.words)
                self.words.append(word)
        return np.array([self._places[word] for word in words], dtype=np.int32)

    def map(self, name: str) -> NDArray:
        """All rows of a column, mapped: read when they are looked at.

        What is written into them stays in this process, and in this array.
        """
        self.files[name].flush()
        file, size = self.files[name].fileno(), self.rows * _type(name).itemsize
        return np.frombuffer(mmap.mmap(file, size, access=mmap.ACCESS_COPY), _type(name))

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
    """The table of metrics; each run in the order of training, the runs in any order."""
    return _table(stored, list(METRIC_COLUMNS), "event")


def diagnostics_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """The table of diagnostics; each run in the order of training, the runs in any order."""
    return _table(stored, list(DIAGNOSTIC_COLUMNS), "name")


def _table(stored: Sequence[Stored], standard: list[str], text: str) -> pd.DataFrame:
    kinds = dict.fromkeys(part.columns for _, _, part in stored if part.rows)
    names = dict.fromkeys([*standard, *(name for columns in kinds for name in columns)])
    piles: dict[int, _Pile] = {}
    type_ = _place_type(stored)
    for place, (_, sheet, part) in enumerate(stored):
        piles.setdefault(id(sheet), _Pile(sheet, type_)).parts[place] = part

    def column(name: str) -> NDArray | pd.Categorical[str]:
        if name == "run_id":
            run_ids = pd.Index([part.run_id for part in stored], dtype=str)
            codes = _joined([pile.places() for pile in piles.values()], type_)
            return pd.Categorical.from_codes(codes, run_ids, validate=False)
        if name == text:
            return _texts(list(piles.values()), name)
        return _joined([pile.column(name) for pile in piles.values()], _type(name))

    return pd.DataFrame({name: column(name) for name in names}, copy=False)


def _joined(parts: Sequence[NDArray], type_: np.dtype) -> NDArray:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, type_), *parts])


@dataclass
class _Pile:
    """Rows of some runs of one sheet, without what lies between them.

    The gaps are filled with the runs that lie last, in memory: of the files only the pages of
    these are copied, and of a sheet without gaps none.

    Args:
        sheet: What the rows are in.
        type_: Of the places.
        parts: The runs' rows by the places of the runs among those of the table.
    """

    sheet: Sheet
    type_: np.dtype
    parts: dict[int, Part] = field(default_factory=dict)

    @functools.cached_property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts.values())

    @functools.cached_property
    def moves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to fill, and rows to fill them with, both ascending: runs stay in order."""
        gap = np.ones(self.rows, bool)
        moved = [np.empty(0, np.int64)]
        for start, rows, _ in sorted(self.parts.values()):
            if start + rows <= self.rows:
                gap[start : start + rows] = False
            else:
                moved.append(np.arange(start, start + rows))
        return np.flatnonzero(gap), np.concatenate(moved)

    def places(self) -> NDArray:
        """For each row the place of its run."""
        places = np.zeros(self.sheet.rows, self.type_)
        for place, (start, rows, _) in self.parts.items():
            places[start : start + rows] = place
        return self._fill_gaps(places)

    def column(self, name: str) -> NDArray:
        """A column; NaN where the sheet does not have it."""
        if name not in self.sheet.files:
            return _unknown(name, self.rows)
        return self._fill_gaps(self.sheet.map(name))

    def _fill_gaps(self, column: NDArray) -> NDArray:
        gaps, moved = self.moves
        column[gaps] = column[moved]
        return column[: self.rows]


def _texts(piles: Sequence[_Pile], name: str) -> pd.Categorical[str]:
    """The texts of a column, of which the sheets have the places; only those that occur."""
    words = sorted({word for pile in piles for word in pile.sheet.words})
    place = {word: number for number, word in enumerate(words)}
    parts = []
    used = np.zeros(len(words), bool)
    for pile in piles:
        codes = np.array([place[word] for word in pile.sheet.words], _place_type(words))
        parts.append(codes[pile.column(name)])
        used[parts[-1]] = True
    joined = _joined(parts, _place_type(words))
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
