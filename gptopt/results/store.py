"""Rows of metrics on disk: one file of numbers, a block per run, only ever appended to.

A block is a matrix of 8-byte numbers, one row per column of the table. Where a block lies
and what its columns are is known to whoever appended it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gptopt.results.columns import DIAGNOSTIC_COLUMNS, METRIC_COLUMNS
from gptopt.results.events import Rows

WIDTH = 8
_WHOLE = ("attempt", "event", "step", "name")
"""Columns of whole numbers; all others are float64."""


class Block(NamedTuple):
    """Where the rows of one run are."""

    offset: int
    rows: int
    columns: tuple[str, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return WIDTH * self.rows * len(self.columns)


@dataclass
class Store:
    """A file of blocks.

    Args:
        file: Open for reading, and for writing where blocks are appended.
        end: Bytes in use; what lies behind was left by a writer that died.
        words: Texts that blocks hold by their place in this list: kinds of rows, and names
            of diagnostics.
    """

    file: BinaryIO
    end: int
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = {word: place for place, word in enumerate(self.words)}

    def append(self, rows: Rows) -> tuple[Block, Block]:
        """Writes the measurements and the diagnostics of one run; returns where they are."""
        event = np.array([self._place(event) for event in rows.events], dtype=np.int64)
        metrics = self._write(
            {"attempt": rows.attempt, "event": event[rows.event], "step": rows.step, **rows.values}
        )
        attempts, steps, names, values = list(zip(*rows.diagnostics, strict=True)) or [()] * 4
        diagnostics = self._write(
            {
                "attempt": np.array(attempts, dtype=np.int64),
                "step": np.array(steps, dtype=np.int64),
                "name": np.array([self._place(name) for name in names], dtype=np.int64),
                "value": np.array(values, dtype=np.float64),
            }
        )
        return metrics, diagnostics

    def _write(self, columns: dict[str, NDArray]) -> Block:
        block = Block(self.end, len(columns["step"]), tuple(columns))
        self.file.seek(self.end)
        for numbers in columns.values():
            self.file.write(numbers.tobytes())
        self.end += block.size
        return block

    def copy(self, block: Block, source: Store) -> Block:
        """Writes a block of ``source``, which has the same words; returns where it is."""
        self.file.seek(self.end)
        self.file.write(source._numbers(block, np.empty(block.size // WIDTH)).data)
        copied = block._replace(offset=self.end)
        self.end += block.size
        return copied

    def read(self, block: Block, room: NDArray[np.float64]) -> dict[str, NDArray]:
        """The columns of ``block``, which lie in ``room`` until that is used again.

        New memory for every block would cost more than reading it.

        Raises:
            OSError: The file ends before the block.
        """
        numbers = self._numbers(block, room).reshape(len(block.columns), block.rows)
        return {
            name: row.view(np.int64) if name in _WHOLE else row
            for name, row in zip(block.columns, numbers, strict=True)
        }

    def _numbers(self, block: Block, room: NDArray[np.float64]) -> NDArray[np.float64]:
        numbers = room[: block.size // WIDTH]
        if os.preadv(self.file.fileno(), [numbers.data], block.offset) != block.size:
            raise OSError(f"{self.file.name}: shorter than its index says")
        return numbers

    def _place(self, word: str) -> int:
        if word not in self._places:
            self._places[word] = len(self.words)
            self.words.append(word)
        return self._places[word]


class Stored(NamedTuple):
    """The rows of one run in one table."""

    run_id: str
    store: Store
    block: Block


def metrics_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """The table of metrics, run by run in the order given.

    Memory: 8 bytes per number, and 14 bytes per row for run, attempt and event.
    """
    return _table(stored, METRIC_COLUMNS, "event")


def diagnostics_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """The table of diagnostics, run by run in the order given."""
    return _table(stored, DIAGNOSTIC_COLUMNS, "name")


def _table(stored: Sequence[Stored], standard: Iterable[str], text: str) -> pd.DataFrame:
    counts = [block.rows for _, _, block in stored]
    kinds = dict.fromkeys(block.columns for _, _, block in stored)
    names = dict.fromkeys([*standard, *(name for columns in kinds for name in columns)])
    codes, words = _codes(store for _, store, _ in stored)
    types = {"attempt": np.int32, "step": np.int64, text: _place_type(words)}
    columns = {
        name: np.empty(sum(counts), types.get(name, np.float64))
        for name in names
        if name != "run_id"
    }
    room = np.empty(max((block.size for _, _, block in stored), default=0) // WIDTH)
    used = np.zeros(len(words), bool)
    start = 0
    for _, store, block in stored:
        if not block.rows:
            continue
        numbers = store.read(block, room)
        numbers[text] = codes[id(store)][numbers[text]]
        used[numbers[text]] = True
        for name, column in columns.items():
            column[start : start + block.rows] = numbers.get(name, np.nan)
        start += block.rows
    runs = np.repeat(np.arange(len(stored), dtype=_place_type(stored)), counts)
    run_ids = pd.Index([run_id for run_id, _, _ in stored], dtype=str)
    texts = {
        "run_id": pd.Categorical.from_codes(runs, run_ids, validate=False),
        text: _categories(columns[text], words, used),
    }
    return pd.DataFrame({name: texts.get(name, columns.get(name)) for name in names}, copy=False)


def _place_type(things: Sequence[object]) -> np.dtype:
    """The smallest type of the places of ``things`` and of -1, as pandas keeps categories."""
    return np.min_scalar_type(-max(1, len(things)))


def _categories(
    codes: NDArray[np.integer], words: list[str], used: NDArray[np.bool_]
) -> pd.Categorical[str]:
    """The texts of ``codes``; of ``words`` those that are used, in their order."""
    kept = [word for word, occurs in zip(words, used, strict=True) if occurs]
    if len(kept) < len(words):
        codes = (np.cumsum(used, dtype=codes.dtype) - 1)[codes]
    return pd.Categorical.from_codes(codes, pd.Index(kept, dtype=str), validate=False)


def _codes(stores: Iterable[Store]) -> tuple[dict[int, NDArray[np.int32]], list[str]]:
    """One list of the words of all ``stores``, and of each the places of its own words there."""
    each = {id(store): store for store in stores}
    words = list(dict.fromkeys(word for store in each.values() for word in store.words))
    place = {word: number for number, word in enumerate(words)}
    codes = {
        key: np.array([place[word] for word in store.words], dtype=np.int32)
        for key, store in each.items()
    }
    return codes, words
