"""Finds run directories, and stamps each with what tells whether it changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gptopt import layout
from gptopt.results.read import Problems

_ENDED = frozenset(layout.TERMINAL.values())
_READ = {layout.RESOLVED, layout.PROVENANCE, layout.STATUS, *_ENDED}


class Found(NamedTuple):
    """A run directory.

    Attributes:
        path: Absolute, links resolved.
        stamp: A hash of name, inode, size and time of change (ns) of every file that is read.
        ended: Whether a terminal marker is there. Of other runs the state depends on who
            holds the lock as well.
    """

    path: str
    stamp: str
    ended: bool


def find(root: Path, problems: Problems) -> Iterator[Found]:
    """Run directories at or below ``root``, sorted within each directory, each once.

    Links to run directories count, other links are not followed.
    """
    seen = set()
    for found in _walk(os.path.realpath(root), problems):
        if found.path not in seen:
            seen.add(found.path)
            yield found


def _walk(directory: str, problems: Problems) -> Iterator[Found]:
    try:
        names = os.listdir(directory)
        if layout.RESOLVED in names:
            yield _stamp(directory, names)
            return
        with os.scandir(directory) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        problems[directory, f"cannot be read: {error.strerror}"] += 1
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            if os.path.isfile(os.path.join(entry.path, layout.RESOLVED)):
                yield from _walk(os.path.realpath(entry.path), problems)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, problems)


def _stamp(run: str, names: list[str]) -> Found:
    read = sorted(name for name in names if name in _READ or name.startswith("metrics."))
    signatures = [_signature(run, name) for name in (*read, layout.OVERRIDES, layout.ATTEMPTS)]
    digest = hashlib.blake2b(os.fsencode(" ".join(signatures)), digest_size=8)
    ended = not _ENDED.isdisjoint(names)
    return Found(run, digest.hexdigest(), ended)


def _signature(run: str, name: str) -> str:
    try:
        stat = os.stat(f"{run}/{name}")
    except OSError:
        return name
    return f"{name}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
