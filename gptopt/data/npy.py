"""The .npy header: where the numbers of a one-dimensional array lie, without mapping the file."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import numpy as np

from gptopt.data.corpus import DataError
from gptopt.data.shards import AGAIN, Shard

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 16


def open_npy(path: Path) -> Shard:
    """Reads the header of ``path``: shape (n,), (1, n) or (n, 1), any type of integer.

    Layout (NumPy Enhancement Proposal 1): the magic, two bytes of version, the length of the
    header (uint16 in version 1, uint32 later), the header, a Python dictionary of ``descr``,
    ``fortran_order`` and ``shape``, then the numbers.

    Signed numbers are read as unsigned ones of the same size, so that a negative one is beyond
    every vocabulary.

    Raises:
        DataError: No .npy file, another shape or type, or a size that is not the header's.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(LONGEST_HEADER + 12)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if start[:6] != MAGIC:
        raise DataError(f"{path}: offset 0: {start[:6]!r}; a .npy file starts with {MAGIC!r}.")
    wide = start[6:7] != b"\x01"
    first = 12 if wide else 10
    if len(start) < first:
        raise DataError(f"{path}: offset 8: {size} bytes end inside the header. {AGAIN}")
    length = struct.unpack("<I" if wide else "<H", start[8:first])[0]
    shape, dtype = _fields(path, start[first : first + length])
    tokens = 1
    for side in shape:
        tokens *= side
    if not 1 <= len(shape) <= 2 or (len(shape) == 2 and 1 not in shape) or tokens < 1:
        raise DataError(
            f"{path}: offset {first}: shape {shape}; it takes (n,) or (1, n) with n at least 1."
        )
    wanted = first + length + tokens * dtype.itemsize
    if size != wanted:
        raise DataError(
            f"{path}: offset {first}: the header says {tokens} numbers of {dtype.name}, so "
            f"{wanted} bytes; the file has {size} bytes. {AGAIN}"
        )
    unsigned = np.dtype(f"{dtype.byteorder}u{dtype.itemsize}")
    return Shard(path, first + length, tokens, unsigned)


def _fields(path: Path, header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type; whatever stands there instead is an error of ours."""
    try:
        fields = ast.literal_eval(header.decode("latin-1").strip())
        shape, description = fields["shape"], fields["descr"]
        dtype = np.dtype(description) if isinstance(description, str) else None
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: offset 10: damaged header {header[:60]!r}. {AGAIN}") from error
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise DataError(f"{path}: offset 10: shape {shape!r} is none. {AGAIN}")
    if dtype is None or dtype.kind not in "iu":
        raise DataError(
            f"{path}: offset 10: numbers of type {description!r}; token ids are integers."
        )
    return shape, dtype
