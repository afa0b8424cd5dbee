"""The rows of many runs as columns of distinct values: small to store, quick to show.

Most settings of a sweep have few values, so a column is a list of those and, per run, the
place of its value in that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd

from gptopt.results.columns import RUN_NUMBERS, RUN_TEXTS
from gptopt.results.read import Row

Value = str | int | float | bool | None
Columns = dict[str, tuple[list[Value], list[int]]]
"""Distinct values and their places, by name; -1 where a run has no such value."""


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
        columns[name] = values, codes
    return columns


def decode(columns: Columns, count: int) -> list[Row]:
    """The ``count`` rows that ``encode`` made ``columns`` of."""
    rows: list[Row] = [{} for _ in range(count)]
    for name, (values, codes) in columns.items():
        for row, code in zip(rows, codes, strict=True):
            if code >= 0:
                row[name] = values[code]
    return rows


def frame(columns: Columns) -> pd.DataFrame:
    """The table of runs: standard columns first, numbers as numbers."""
    series = {name: _series(values, codes) for name, (values, codes) in columns.items()}
    table = pd.DataFrame(series, copy=False)
    table = table.reindex(columns=list(RUN_TEXTS | RUN_NUMBERS | dict.fromkeys(table)))
    table[list(RUN_NUMBERS)] = table[list(RUN_NUMBERS)].apply(pd.to_numeric)
    return table.copy()  # in one piece: pandas warns of tables of a hundred single columns


def _series(values: list[Value], codes: list[int]) -> pd.Series:
    # The place -1, of what is absent, is the last one.
    known = pd.Series(values if -1 not in codes else [*values, None])
    return known.take(np.array(codes)).reset_index(drop=True)
