"""TensorBoard's event files, without TensorBoard.

A file is a sequence of records (length, 4 bytes of checksum, data, 4 bytes of checksum), the
data of each an ``Event`` of protocol buffers. Read are the scalars: ``simple_value``, and tensors
of one float or double. The checksums are not: a cut or damaged end shows in the lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptopt.results.importers.log import NAMES, OURS, Log, rows_at

PATTERNS = ("*tfevents*",)
# Numbers of the fields in event.proto, summary.proto and tensor.proto.
WALL_TIME, STEP, SUMMARY = 1, 2, 5
VALUE = 1
TAG, SIMPLE_VALUE, TENSOR = 1, 2, 8
CONTENT, FLOAT_VAL, DOUBLE_VAL = 4, 5, 6
NUMBERS = {4: "<f", 8: "<d"}


def read(file: Path) -> Iterator[Log]:
    """The run of one file.

    Raises:
        ValueError: It has no loss under a name that is known.
    """
    steps: dict[int, dict[str, float]] = {}
    for step, tag, value in scalars(file.read_bytes()):
        if OURS.get(tag, "step") != "step":
            steps.setdefault(step, {})[tag] = value
    rows = [row for step in sorted(steps) for row in rows_at(step, steps[step])]
    if not any("train_loss" in row or "val_loss" in row for row in rows):
        known = ", ".join((*NAMES["train_loss"], *NAMES["val_loss"]))
        raise ValueError(f"no scalar is a loss; known are {known}")
    yield Log(file.parent.name or file.stem, rows)


def scalars(data: bytes) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of every scalar, up to the last complete record."""
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        record = data[place + 12 : place + 12 + length]
        place += 16 + length
        if len(record) < length:
            return
        event = list(_fields(record))
        step = next((value for number, value in event if number == STEP), 0)
        for summary in (value for number, value in event if number == SUMMARY):
            for number, value in _fields(summary):
                if number == VALUE:
                    tag, scalar = _scalar(value)
                    if scalar is not None:
                        yield step, tag, scalar


def _scalar(value: bytes) -> tuple[str, float | None]:
    tag, scalar = "", None
    for number, content in _fields(value):
        if number == TAG:
            tag = content.decode("utf-8", errors="replace")
        elif number == SIMPLE_VALUE:
            (scalar,) = struct.unpack("<f", content)
        elif number == TENSOR:
            for part, packed in _fields(content):
                if part in (CONTENT, FLOAT_VAL, DOUBLE_VAL) and len(packed) in NUMBERS:
                    (scalar,) = struct.unpack(NUMBERS[len(packed)], packed)
    return tag, scalar


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, content) of each field: an int for a varint, bytes otherwise."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            content, place = _varint(message, place)
            yield key >> 3, content
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}: it is no event file")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
    raise ValueError("a number is cut off: it is no event file")
