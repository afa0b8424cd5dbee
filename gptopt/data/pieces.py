"""Tokens that lie in many short pieces of files, as one source."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptopt.data.corpus import DataError
from gptopt.data.shards import AGAIN


class Pieces:
    """A ``TokenSource`` of pieces; slices are read into memory of their own.

    Args:
        paths: The files.
        dtype: Of the tokens.
        numbers: Which of ``paths`` each piece is in, shape (n,).
        places: Byte where it starts, shape (n,).
        lengths: Its tokens, shape (n,).
    """

    def __init__(
        self,
        paths: Sequence[Path],
        dtype: np.dtype,
        numbers: np.ndarray,
        places: np.ndarray,
        lengths: np.ndarray,
    ) -> None:
        self.paths, self.dtype = list(paths), dtype
        self._numbers, self._places = numbers, places
        self._ends = np.cumsum(lengths)
        self.boundaries = self._ends - lengths
        """Where pieces, which are samples of a data set, begin."""
        self._descriptors = [os.open(path, os.O_RDONLY) for path in paths]
        weakref.finalize(self, _close, self._descriptors)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, window: slice) -> np.ndarray:
        """Tokens ``window.start`` ... ``window.stop - 1``, shape (stop - start,)."""
        tokens = np.empty(window.stop - window.start, dtype=self.dtype)
        piece, done = int(np.searchsorted(self._ends, window.start, side="right")), 0
        while done < len(tokens):
            index = window.start + done
            count = min(int(self._ends[piece]) - index, len(tokens) - done)
            within = (index - int(self.boundaries[piece])) * self.dtype.itemsize
            self._read(piece, int(self._places[piece]) + within, tokens[done : done + count])
            piece, done = piece + 1, done + count
        return tokens

    def _read(self, piece: int, byte: int, tokens: np.ndarray) -> None:
        rest, number = tokens.view(np.uint8), self._numbers[piece]
        while len(rest):
            count = os.preadv(self._descriptors[number], [rest.data], byte)
            if not count:
                raise DataError(f"{self.paths[number]}: ends at byte {byte}. {AGAIN}")
            byte, rest = byte + count, rest[count:]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
