"""Directories of Mosaic's streaming data sets (MDS), read without the package.

    index.json    {"shards": [{"raw_data": {"basename", "bytes"}, "samples", "compression",
                  "column_names", "column_encodings", "column_sizes"}, ...]}
    a shard       uint32 N | uint32[N + 1] offsets from the start of the file | JSON | N samples
    a sample      uint32 size of every column whose size varies | the columns, one after the other

``column`` holds ids: encoded as bytes (of type ``dtype``), or as ndarray:<type> with or without
a shape. Samples are read in order; they count as documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.directories import corpus_of_directories, entry, inside, read_index
from gptopt.data.pieces import Pieces
from gptopt.data.shards import AGAIN
from gptopt.data.stored import Stored

SHAPE_BYTES = {0: 1, 1: 2, 2: 4, 3: 8}
"""The lowest two bits of a shape's first byte -> bytes of each of its numbers."""


def build(
    *,
    data_root: Path,
    train: str,
    val: str | None,
    val_split: PositiveInt | Share | None,
    column: str,
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] | None,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens all shards of the directories and finds their samples."""
    return corpus_of_directories(
        lambda key, directory: _read(data_root, key, directory, column, dtype),
        train,
        val,
        val_split,
        vocab_size,
    )


class _Column(NamedTuple):
    """Where the ids of a sample are: after which bytes, and how they are encoded."""

    number: int
    sizes: list[int | None]
    dtype: np.dtype
    has_shape: bool


def _read(data_root: Path, key: str, directory: str, column: str, dtype: str | None) -> Stored:
    place, index = read_index(data_root, key, directory)
    path = place / "index.json"
    paths, found, types = [], [], set()
    for listed in entry(index, "shards", list, path):
        if listed.get("compression"):
            raise DataError(
                f"{path}: compression {listed['compression']!r}; only shards without it can be "
                "read in place. Write them again with compression=None."
            )
        name = entry(entry(listed, "raw_data", dict, path), "basename", str, path)
        how = _column(listed, column, dtype, path)
        paths.append(inside(place, name, path))
        found.append(_pieces(paths[-1], entry(listed, "samples", int, path), how))
        types.add(how.dtype)
    if len(types) != 1:
        raise DataError(f"{path}: shards of {len(types)} types of ids; one source takes one.")
    numbers = np.repeat(np.arange(len(paths)), [len(places) for places, _ in found])
    places = np.concatenate([places for places, _ in found])
    lengths = np.concatenate([lengths for _, lengths in found])
    if not lengths.sum():
        raise DataError(f"{path}: no tokens in column {column!r}.")
    tokens = Pieces(paths, types.pop(), numbers, places, lengths)
    return Stored(tokens, {f"{directory}/{path.name}": path for path in paths})


def _column(listed: dict[str, Any], column: str, dtype: str | None, path: Path) -> _Column:
    names = entry(listed, "column_names", list, path)
    if column not in names:
        raise DataError(f"{path}: no column {column!r}; it has: {', '.join(names)}.")
    number = names.index(column)
    sizes = entry(listed, "column_sizes", list, path)
    encodings = entry(listed, "column_encodings", list, path)
    if not len(sizes) == len(encodings) == len(names):
        raise DataError(f"{path}: column names, encodings and sizes differ in number. {AGAIN}")
    kind, *details = str(encodings[number]).split(":")
    if kind == "bytes" and dtype is None:
        raise DataError(f"{path}: column {column!r} holds bytes. Set data.dtype: int64, uint16 ...")
    known = kind == "bytes" or (kind == "ndarray" and details)
    said = np.dtype(details[0] if details else dtype) if known else None
    if said is None or said.kind not in "iu":
        raise DataError(
            f"{path}: column {column!r} is encoded as {encodings[number]!r}; ids are bytes, or "
            "ndarray:<type of integer>."
        )
    unsigned = np.dtype(f"<u{said.itemsize}")  # a negative id is beyond any vocabulary
    return _Column(number, sizes, unsigned, kind == "ndarray" and len(details) == 1)


def _pieces(path: Path, samples: int, column: _Column) -> tuple[np.ndarray, np.ndarray]:
    """First byte and number of the ids of each sample, both (n,)."""
    content = np.fromfile(path, dtype=np.uint8)
    size, head = len(content), 4 * (samples + 2)
    if size < head or int(content[:4].view("<u4")[0]) != samples:
        raise DataError(
            f"{path}: offset 0: {size} bytes that do not start with {samples}, the samples that "
            f"index.json lists. {AGAIN}"
        )
    offsets = content[4:head].view("<u4").astype(np.int64)
    if samples and (offsets[0] < head or offsets[-1] != size or (np.diff(offsets) < 0).any()):
        raise DataError(
            f"{path}: offset 4: samples from byte {offsets[0]} to {offsets[-1]}; the file has "
            f"{size} bytes. {AGAIN}"
        )
    places, lengths = [], []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        place, count = _in_sample(content, start, stop, column)
        tokens, extra = divmod(count, column.dtype.itemsize)
        if extra or count < 0 or place + count > stop:
            raise DataError(
                f"{path}: offset {start}: a sample of {stop - start} bytes whose ids would be "
                f"bytes {place} to {place + count}. {AGAIN}"
            )
        places.append(place)
        lengths.append(tokens)
    return np.array(places, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _in_sample(content: np.ndarray, start: int, stop: int, column: _Column) -> tuple[int, int]:
    """(first byte, bytes) of the ids of a sample; wrong numbers where the sample is damaged."""
    varying = sum(size is None for size in column.sizes)
    begin = start + 4 * varying
    if begin > stop:
        return begin, 0
    given = iter(content[start:begin].view("<u4").tolist())
    sizes = [next(given) if size is None else size for size in column.sizes]
    place, count = begin + sum(sizes[: column.number]), sizes[column.number]
    if column.has_shape and place < stop:
        dimensions, kind = int(content[place]) >> 2, int(content[place]) & 3
        shape = 1 + dimensions * SHAPE_BYTES[kind]
        place, count = place + shape, count - shape
    return place, count
