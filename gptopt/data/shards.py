"""Token shards on disk: many ``.bin`` files read as one sequence.

A shard with a header is 256 little-endian int32 (1,024 bytes), then the tokens:

    [0] magic   [1] version   [2] number of tokens   the rest 0

    magic      version   tokens   written by
    20240520   1         uint16   llm.c, modded-nanogpt, and gptopt
    20240801   7         uint32   llm.c for Llama 3, and gptopt where 16 bits are too few
    20250401   1         uint16   GPT-opt

A raw shard (nanoGPT's ``train.bin``) is tokens only. Little-endian in all cases.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from gptopt.data.corpus import DataError, Stretch, TokenSource

HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
MAGIC, MAGIC_32 = 20240520, 20240801
"""Those that gptopt writes, for uint16 and uint32."""
LAYOUTS = {20240520: (1, "<u2"), 20240801: (7, "<u4"), 20250401: (1, "<u2")}
"""magic -> (version, type of the tokens)."""
RAW = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}

SAMPLES, SAMPLE_BYTES = 16, 4096
AGAIN = "The file was cut short, damaged, or is still being written: copy or prepare it again."


@dataclass(frozen=True)
class Shard:
    """One file: where its tokens start, how many there are and of which type."""

    path: Path
    first_byte: int
    tokens: int
    dtype: np.dtype


def open_shard(path: Path, raw_dtype: str | None) -> Shard:
    """Reads the header of ``path`` and compares it with the size of the file.

    Args:
        path: A shard.
        raw_dtype: None for a shard with a header; uint8, uint16 or uint32 for a raw one.

    Raises:
        DataError: Unknown magic or version, or a size that is not the header's.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = np.frombuffer(file.read(HEADER_BYTES), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if raw_dtype is not None:
        return _raw_shard(path, size, np.dtype(RAW[raw_dtype]), header)
    if len(header) < HEADER_BYTES:
        raise DataError(
            f"{path}: {size} bytes; a header alone takes {HEADER_BYTES} bytes. {AGAIN} "
            "(A raw file without header needs data.dtype.)"
        )
    magic, version, tokens = (int(value) for value in header.view("<i4")[:3])
    if magic not in LAYOUTS:
        raise DataError(
            f"{path}: offset 0: magic number {magic}; known are {', '.join(map(str, LAYOUTS))}. "
            "Set data.dtype=uint16 (uint8, uint32) if this is a raw file without header."
        )
    expected, dtype_name = LAYOUTS[magic]
    if version != expected:
        raise DataError(f"{path}: offset 4: version {version}; magic {magic} has {expected}.")
    dtype = np.dtype(dtype_name)
    wanted = HEADER_BYTES + tokens * dtype.itemsize
    if tokens < 1 or size != wanted:
        raise DataError(
            f"{path}: offset 8: the header says {tokens} tokens, so {wanted} bytes; "
            f"the file has {size} bytes. {AGAIN}"
        )
    return Shard(path, HEADER_BYTES, tokens, dtype)


def _raw_shard(path: Path, size: int, dtype: np.dtype, start: np.ndarray) -> Shard:
    if len(start) >= 4 and (magic := int(start[:4].view("<i4")[0])) in LAYOUTS:
        raise DataError(
            f"{path}: starts with the header {magic}, and data.dtype={dtype.name} is for raw "
            "files. Set data.dtype=null."
        )
    tokens, extra = divmod(size, dtype.itemsize)
    if extra or not tokens:
        raise DataError(
            f"{path}: {size} bytes are no whole number (at least 1) of {dtype.name} tokens. {AGAIN}"
        )
    return Shard(path, 0, tokens, dtype)


class Shards:
    """Several shards as one ``TokenSource``, in the order given.

    Slices are read into memory of their own (pread, which also is faster than copying from a
    memory map): a file that shrinks under a running job is a ``DataError`` and not a SIGBUS.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self.dtype = self.shards[0].dtype
        for shard in self.shards:
            if shard.dtype != self.dtype:
                raise DataError(
                    f"{shard.path} holds {shard.dtype.name} tokens and {self.shards[0].path} "
                    f"{self.dtype.name}: one source takes one type. Name them apart."
                )
        self._ends = list(accumulate(shard.tokens for shard in self.shards))
        self._descriptors = [os.open(shard.path, os.O_RDONLY) for shard in self.shards]
        weakref.finalize(self, _close, self._descriptors)
        self._ends_array = np.array(self._ends, dtype=np.int64)
        self._counts = np.array([shard.tokens for shard in self.shards], dtype=np.int64)
        self._first_bytes = np.array([shard.first_byte for shard in self.shards], dtype=np.int64)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, window: slice) -> np.ndarray:
        """Tokens ``window.start`` ... ``window.stop - 1``, shape (stop - start,)."""
        tokens = np.empty(window.stop - window.start, dtype=self.dtype)
        self.fill(window.start, tokens)
        return tokens

    def fill(self, start: int, tokens: np.ndarray) -> None:
        """Reads the tokens from ``start`` on into ``tokens``, (n,) and contiguous."""
        number = bisect_right(self._ends, start)
        here = self._ends[number] - start
        if here < len(tokens):
            self.fill(start, tokens[:here])
            self.fill(start + here, tokens[here:])
            return
        byte = self._byte(number, start)
        count = os.preadv(self._descriptors[number], [tokens.data], byte)
        if count != tokens.nbytes:
            self._fill_rest(number, byte + count, tokens.view(np.uint8)[count:])

    def fill_rows(self, starts: np.ndarray, rows: Sequence[np.ndarray]) -> None:
        """Reads the tokens from ``starts[i]`` on into ``rows[i]``, all of one length.

        One system call a row and little else: with some thousand tokens a row, Python is what
        costs.
        """
        numbers = np.searchsorted(self._ends_array, starts, side="right")
        left = self._ends_array[numbers] - starts
        places = self._first_bytes[numbers] + (self._counts[numbers] - left) * self.dtype.itemsize
        descriptors, preadv, wanted = self._descriptors, os.preadv, rows[0].nbytes
        inside = left >= len(rows[0])  # of one shard
        columns = (starts, numbers, places, inside)
        for row, start, number, place, is_inside in zip(
            rows, *(column.tolist() for column in columns), strict=True
        ):
            if not is_inside:
                self.fill(start, row)
            elif (count := preadv(descriptors[number], [row], place)) != wanted:
                self._fill_rest(number, place + count, row.view(np.uint8)[count:])

    def _fill_rest(self, number: int, byte: int, rest: np.ndarray) -> None:
        """Goes on after a short read: some file systems give less at a time than was asked."""
        while len(rest):
            count = os.preadv(self._descriptors[number], [rest.data], byte)
            if not count:
                shard = self.shards[number]
                end = os.fstat(self._descriptors[number]).st_size
                raise DataError(
                    f"{shard.path}: ends at byte {end}; it had {shard.tokens} tokens when it was "
                    f"opened. {AGAIN}"
                )
            byte, rest = byte + count, rest[count:]

    def _byte(self, number: int, index: int) -> int:
        """Where token ``index`` of the sequence lies in shard ``number``."""
        shard = self.shards[number]
        left = self._ends[number] - index
        return shard.first_byte + (shard.tokens - left) * self.dtype.itemsize

    def where(self, index: int) -> str:
        """The place of token ``index``, for messages: file and byte offset."""
        number = bisect_right(self._ends, index)
        return f"{self.shards[number].path}, offset {self._byte(number, index)}"


def place_of(source: TokenSource, index: int) -> str:
    """Where token ``index`` of any source lies, for messages."""
    while isinstance(source, Stretch):
        index, source = index + source.start, source.source
    return source.where(index) if isinstance(source, Shards) else f"Token {index}"


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def sampled_sha256(path: Path) -> str:
    """sha256 (hex) of the size and 16 evenly spaced blocks of 4 KiB, first and last included.

    A file of up to 64 KiB is covered whole. Tells replaced and reordered shards apart in
    milliseconds; a flipped bit in the middle of a large one takes ``sha256sum`` and the manifest.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} ".encode())
    with open(path, "rb", buffering=0) as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for sample in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
