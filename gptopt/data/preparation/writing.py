"""Token shards written as a stream: memory for none of them, and a name only for whole ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

import numpy as np

from gptopt.data.shards import HEADER_INTS, LAYOUTS, MAGIC, MAGIC_32
from gptopt.files import sync_directory

LONGEST = 2**31 - 1
"""Tokens that the header of a shard can count."""


def layout(vocab_size: int) -> tuple[int, np.dtype]:
    """(magic number, type of the tokens) of shards with ids below ``vocab_size``."""
    magic = MAGIC if vocab_size <= 1 << 16 else MAGIC_32
    return magic, np.dtype(LAYOUTS[magic][1])


class PartWriter:
    """Writes ``<part>_000000.bin``, ``<part>_000001.bin``, ... of a known number of tokens.

    Args:
        out: An existing directory.
        part: ``train`` or ``val``.
        tokens: How many will be appended.
        shard_tokens: Tokens of every shard but the last.
        vocab_size: Decides between uint16 and uint32.
    """

    def __init__(
        self, out: Path, part: str, tokens: int, shard_tokens: int, vocab_size: int
    ) -> None:
        self.out, self.part, self.tokens, self.shard_tokens = out, part, tokens, shard_tokens
        self.magic, self.dtype = layout(vocab_size)
        self.shards: dict[str, dict[str, int | str]] = {}
        """Name -> tokens, max_id and sha256 of the file; of those that are written."""
        self._file: IO[bytes] | None = None
        self._left = self._max = 0

    def append(self, ids: np.ndarray) -> None:
        """Goes on with ``ids``, shape (n,)."""
        while len(ids):
            if self._file is None:
                self._open()
            now, ids = ids[: self._left], ids[self._left :]
            self._write(np.ascontiguousarray(now, dtype=self.dtype))
            self._max = max(self._max, int(now.max()))
            self._left -= len(now)
            if not self._left:
                self._close()

    def _open(self) -> None:
        self._name = f"{self.part}_{len(self.shards):06d}.bin"
        self._left = min(self.shard_tokens, self.tokens - len(self.shards) * self.shard_tokens)
        self._file = open(self.out / f"{self._name}.partial", "wb")  # noqa: SIM115
        self._sha256, self._max, self._count = hashlib.sha256(), 0, self._left
        header = np.zeros(HEADER_INTS, dtype="<i4")
        header[:3] = self.magic, LAYOUTS[self.magic][0], self._count
        self._write(header)

    def _write(self, content: np.ndarray) -> None:
        assert self._file is not None
        self._file.write(content.data)
        self._sha256.update(content.data)

    def _close(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        (self.out / f"{self._name}.partial").rename(self.out / self._name)
        sync_directory(self.out)
        self.shards[self._name] = {
            "tokens": self._count,
            "max_id": self._max,
            "sha256": self._sha256.hexdigest(),
        }


def write_shard(path: Path, tokens: np.ndarray, vocab_size: int) -> None:
    """Writes one shard, ``tokens`` of shape (n,), under any name."""
    writer = PartWriter(path.parent, path.stem, len(tokens), max(1, len(tokens)), vocab_size)
    writer.append(tokens)
    (path.parent / f"{path.stem}_000000.bin").rename(path)
