"""Small files that survive a crash: written beside their name, synced, then renamed over it.

A name that ``write`` returned for is complete after a power cut, not only after a kill
(fsync of the file before the rename, of the directory after it).
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def sync_directory(directory: Path) -> None:
    """Makes renames inside ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces ``path`` by ``text``; readers see the old or the new content, never a mixture.

    Args:
        path: The file to replace; its directory must exist.
        text: UTF-8 content.
        durable: Sync to the disk. Off for hints that are rewritten all the time.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """``write`` of ``value`` as indented strict JSON (a NaN is an error)."""
    write(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable=durable)


def sweep(directory: Path) -> None:
    """Removes what killed writers left unfinished in ``directory``; for its only writer."""
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def read_json(path: Path) -> Any | None:
    """The JSON content of ``path``; None where it is missing, unreadable or cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
