"""Directories of litdata made for its TokensLoader, read without the package.

    index.json    {"chunks": [{"filename", ...}], "config": {"data_format": ["no_header_numpy:5"],
                  "compression": null, ...}}
    a chunk       uint32 N | uint32[N + 1] offsets from the start of the file | the items, whose
                  numbers follow each other without gaps

The number after the colon names a type of torch (no_header_tensor) or numpy (no_header_numpy).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.directories import corpus_of_directories, entry, inside, read_index
from gptopt.data.shards import AGAIN, Shard, Shards
from gptopt.data.stored import Stored

TORCH = {11: "u1", 12: "i1", 13: "i2", 14: "i2", 15: "i4", 16: "i4", 17: "i8", 18: "i8", 20: "u2"}
NUMPY = dict(enumerate(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]))
TYPES = {"no_header_tensor": TORCH, "no_header_numpy": NUMPY}
"""What the numbers mean in litdata 0.2; only the integers."""


def build(
    *,
    data_root: Path,
    train: str,
    val: str | None,
    val_split: PositiveInt | Share | None,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens all chunks of the directories and compares their headers with their sizes."""
    return corpus_of_directories(
        lambda key, directory: _read(data_root, key, directory), train, val, val_split, vocab_size
    )


def _read(data_root: Path, key: str, directory: str) -> Stored:
    place, index = read_index(data_root, key, directory)
    path = place / "index.json"
    config = entry(index, "config", dict, path)
    if config.get("compression"):
        raise DataError(
            f"{path}: compression {config['compression']!r}; only chunks without it can be read in "
            "place. Write them again with compression=None."
        )
    names = entry(config, "data_format", list, path)
    kind, _, number = str(names[0] if len(names) == 1 else names).partition(":")
    dtype = TYPES.get(kind, {}).get(int(number) if number.isdecimal() else -1)
    if dtype is None:
        raise DataError(
            f"{path}: data_format {names!r}; tokens are one item of integers, no_header_tensor or "
            "no_header_numpy (what optimize writes with item_loader=TokensLoader())."
        )
    chunks = {
        name: inside(place, name, path)
        for listed in entry(index, "chunks", list, path)
        for name in [entry(listed, "filename", str, path)]
    }
    if not chunks:
        raise DataError(f"{path}: lists no chunks.")
    unsigned = np.dtype(f"<u{np.dtype(dtype).itemsize}")  # a negative id is beyond any vocabulary
    tokens = Shards([_open(chunk, unsigned) for chunk in chunks.values()])
    return Stored(tokens, {f"{directory}/{name}": chunk for name, chunk in chunks.items()})


def _open(path: Path, dtype: np.dtype) -> Shard:
    size = path.stat().st_size
    with open(path, "rb") as file:
        items = int.from_bytes(file.read(4), "little")
        first_byte = 4 * (items + 2)
        if items < 1 or first_byte > size:
            raise DataError(f"{path}: offset 0: {items} items; the file has {size} bytes. {AGAIN}")
        offsets = np.frombuffer(file.read(4 * (items + 1)), dtype="<u4").astype(np.int64)
    tokens, extra = divmod(size - first_byte, dtype.itemsize)
    if offsets[0] != first_byte or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise DataError(
            f"{path}: offset 4: items from byte {offsets[0]} to {offsets[-1]}; they should run "
            f"from {first_byte} to {size}, the end of the file. {AGAIN}"
        )
    if extra or not tokens:
        raise DataError(
            f"{path}: offset {first_byte}: {size - first_byte} bytes are no whole number (at least "
            f"1) of {dtype.name} tokens. {AGAIN}"
        )
    return Shard(path, first_byte, tokens, dtype)
