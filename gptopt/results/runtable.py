"""The rows of many runs as columns of distinct values: small to store, quick to show.

Most settings of a sweep have few values, so a column is a list of those and, per run, the
place of its value in that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from gptopt.results.columns import RUN_NUMBERS, RUN_TEXTS
from gptopt.results.read import Row

Value = str | int | float | bool | None
Columns = dict[str, tuple[list[Value], list[int]]]
"""Distinct values and their places, by name; -1 where a run has no such value.

The places of a value that all runs share, as most settings are, are a single 0.
"""


def encode(rows: Sequence[Row]) -> Columns:
    """``rows`` by column."""
    columns: Columns = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        places: dict[tuple[type, object], int] = {}
        values: list[Value] = []
        codes = []
        for row in rows:
            if name not in row:
                codes.append(-1)
                continue
            value = row[name]
            key = (type(value), value)  # 1, 1.0 and True are equal, and three values
            if key not in places:
                places[key] = len(values)
                values.append(value)
            codes.append(places[key])
        shared = len(values) == 1 and -1 not in codes
        columns[name] = values, [0] if shared else codes
    return columns


def revise(old: Columns, rows: Sequence[Row | int]) -> Columns:
    """What ``encode`` makes of ``rows``; a number stands for the row of that place in ``old``."""
    added = [row for row in rows if not isinstance(row, int)]
    kept = np.array([row for row in rows if isinstance(row, int)], np.int64)
    if not len(kept):
        return encode(added)
    is_kept = np.array([isinstance(row, int) for row in rows])
    fresh = encode(added)
    columns: Columns = {}
    order: dict[str, tuple[int, int]] = {}
    for position, name in enumerate(old | fresh):
        values, places = old.get(name, ([], []))
        more, added_places = fresh.get(name, ([], []))
        values, moved = _joined(values, more)
        codes = np.full(len(rows), -1)
        if places:
            codes[is_kept] = np.array(places)[kept] if len(places) > 1 else 0
        if added_places:
            codes[~is_kept] = np.array([*moved, -1])[added_places]  # its place -1 is the last
        first = int((codes >= 0).argmax())
        if codes[first] >= 0:
            columns[name] = _by_occurrence(values, codes)
            row = rows[first]
            order[name] = first, position if isinstance(row, int) else list(row).index(name)
    return {name: columns[name] for name in sorted(columns, key=order.__getitem__)}


def _joined(values: list[Value], more: list[Value]) -> tuple[list[Value], list[int]]:
    """``values`` and what ``more`` adds to them, and the places of ``more`` in that list."""
    joined = list(values)
    places = {(type(value), value): place for place, value in enumerate(values)}
    for value in more:
        if (type(value), value) not in places:
            places[type(value), value] = len(joined)
            joined.append(value)
    return joined, [places[type(value), value] for value in more]


def _by_occurrence(values: list[Value], codes: NDArray[np.int64]) -> tuple[list[Value], list[int]]:
    """The same column: values in the order of the rows, and none that is in no row."""
    count = len(codes)
    first = np.full(len(values) + 1, count)  # and one for the place -1
    first[codes[::-1]] = np.arange(count)[::-1]  # of equal places the last assignment stays
    kept = [place for place in first[:-1].argsort() if first[place] < count]
    moved = np.full(len(values) + 1, -1)
    moved[kept] = np.arange(len(kept))
    shared = len(kept) == 1 and codes.min() >= 0
    return [values[place] for place in kept], [0] if shared else moved[codes].tolist()


def frame(columns: Columns) -> pd.DataFrame:
    """The table of runs: standard columns first, numbers as numbers."""
    count = len(columns["path"][1]) if columns else 0  # no two runs share that
    absent: tuple[list[Value], list[int]] = [], [-1]
    return pd.DataFrame(
        {
            name: _column(*columns.get(name, absent), count, numeric=name in RUN_NUMBERS)
            for name in RUN_TEXTS | RUN_NUMBERS | dict.fromkeys(columns)
        }
    )


def _column(
    values: list[Value], codes: list[int], count: int, *, numeric: bool
) -> ExtensionArray | NDArray:
    # The place -1, of what is absent, is the last one.
    known = pd.Series(values if -1 not in codes else [*values, None])
    array = (pd.to_numeric(known) if numeric else known).array
    plain = array.to_numpy() if isinstance(array, pd.arrays.NumpyExtensionArray) else array
    return plain.take(np.full(count, codes))
