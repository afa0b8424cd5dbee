"""Finds run directories, and stamps each with what tells whether it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptopt import layout
from gptopt.results.read import Problems

_READ = {layout.RESOLVED, layout.PROVENANCE, layout.STATUS, *layout.TERMINAL.values()}


@dataclass(frozen=True)
class Found:
    """A run directory.

    Attributes:
        path: Absolute, links resolved.
        stamp: Name, inode, size and time of change (ns) of every file that is read.
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
        with os.scandir(directory) as listed:
            entries = {entry.name: entry for entry in listed}
    except OSError as error:
        problems[directory, f"cannot be read: {error.strerror}"] += 1
        return
    if layout.RESOLVED in entries and entries[layout.RESOLVED].is_file():
        yield _stamp(directory, entries)
        return
    for name in sorted(entries):
        if name.startswith("."):
            continue
        entry = entries[name]
        if entry.is_symlink():
            if os.path.isfile(os.path.join(entry.path, layout.RESOLVED)):
                yield from _walk(os.path.realpath(entry.path), problems)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, problems)


def _stamp(run: str, entries: dict[str, os.DirEntry[str]]) -> Found:
    parts = []
    for name in sorted(entries):
        if name in _READ or name.startswith("metrics."):
            parts.append(_signature(name, entries[name]))
    for name in (layout.OVERRIDES, layout.ATTEMPTS):
        parts.append(_signature(name, f"{run}/{name}"))
    ended = not entries.keys().isdisjoint(layout.TERMINAL.values())
    return Found(run, " ".join(parts), ended)


def _signature(name: str, file: os.DirEntry[str] | str) -> str:
    try:
        stat = os.stat(file)
    except OSError:
        return name
    return f"{name}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
