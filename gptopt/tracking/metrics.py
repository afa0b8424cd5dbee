"""The metrics of one attempt, written by the training process: the truth about its curve.

One JSON object a line. Numbers are written by repr, so reading gives the same bits back.
JSON knows no NaN and no infinity: such a value is null and named beside it, as in
``{"event": "train", "step": 3, "train_loss": null, "nonfinite": {"train_loss": "nan"}}``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SYNC_S = 5.0


class MetricsFile:
    """Appends rows to one file; a full disk costs a warning, not the run.

    A row is one ``os.write`` of a whole line. What could not be written stays in memory
    and goes first at the next row, so the file never has a gap.

    Args:
        path: Created with mode 0640; its directory must exist.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self._unwritten = bytearray()
        self._warned = False
        self._synced_at = time.monotonic()

    @property
    def unwritten(self) -> int:
        """Number of rows that wait in memory for the disk."""
        return self._unwritten.count(b"\n")

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends ``row``; an error of the file system is logged once and retried later."""
        self._unwritten += encode(row)
        try:
            self._flush()
            if time.monotonic() - self._synced_at >= SYNC_S:
                self._fsync()
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "%s: %s. Rows stay in memory and are written as soon as that works again.",
                    self.path,
                    error.strerror,
                )
            self._warned = True
        else:
            self._warned = False

    def sync(self) -> None:
        """Brings every row to the disk: before a checkpoint or a marker vouches for them.

        Raises:
            OSError: Some rows could not be written; they stay in memory.
        """
        self._flush()
        self._fsync()

    def close(self) -> None:
        """Syncs and closes.

        Raises:
            OSError: The rows that still waited in memory are lost.
        """
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def _flush(self) -> None:
        # A full disk may take part of a line; the rest of it goes first next time.
        while self._unwritten:
            written = os.write(self._descriptor, self._unwritten)
            del self._unwritten[:written]

    def _fsync(self) -> None:
        os.fsync(self._descriptor)
        self._synced_at = time.monotonic()


def encode(row: Mapping[str, Any]) -> bytes:
    """``row`` as one line of strict JSON, newline included."""
    odd = {k: str(v) for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    if odd:
        row = {**row, **dict.fromkeys(odd), "nonfinite": odd}
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The row that ``encode`` made ``line`` of, NaN and infinities restored."""
    row = json.loads(line)
    odd = row.pop("nonfinite", {})
    return row | {name: float(text) for name, text in odd.items()}
