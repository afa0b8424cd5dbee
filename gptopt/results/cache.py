"""What was read from a tree of runs, kept, so that only what changed is read again.

    <cache home>/<hash of the root>/
      index.json    version, stamps and rows of the runs, where their metrics are
      rows.<token>  the metrics (see store), appended to; a new folder once half is waste
      lock          held by the one process that writes

The index is replaced after the rows it speaks of are on disk, and old rows are never
overwritten, so a reader needs no lock. Whatever does not fit together is read anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from gptopt import files
from gptopt.results import columns, runtable
from gptopt.results.store import Part, Sheet, Store

logger = logging.getLogger(__name__)

VERSION = f"5.{columns.VERSION}"
SHEETS = ("metrics", "diagnostics")
FEWEST_RUNS = 100
"""A smaller tree is read anew every time: that takes no longer than anybody notices."""


@dataclass
class Entry:
    """What is known of one directory.

    Attributes:
        stamp: See ``scan.Found``.
        problems: Path, problem, count.
        metrics, diagnostics: None for what is no run.
    """

    stamp: str
    problems: list[tuple[str, str, int]]
    metrics: Part | None
    diagnostics: Part | None


@dataclass
class Index:
    """The whole of a cache.

    Attributes:
        token: Names the folder of the rows.
        entries: By path of the directory.
        table: Rows of the entries that are runs, in their order.
    """

    token: str
    store: Store
    entries: dict[str, Entry]
    table: runtable.Columns


def home() -> Path:
    """Where the caches of this user are: below ``$XDG_CACHE_HOME``, or else ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gptopt" / "results"


def folder(root: str) -> Path:
    """Where the cache of the tree ``root`` is; ``root`` is absolute."""
    return home() / hashlib.sha256(os.fsencode(root)).hexdigest()[:16]


def load(directory: Path, *, tell: bool = False) -> Index | None:
    """What the cache in ``directory`` holds; None when there is none that can be used.

    Args:
        directory: See ``folder``.
        tell: Log a warning when it is damaged.
    """
    try:
        text = (directory / "index.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return _damaged(directory, error, tell=tell)
    try:
        found = json.loads(text)
        return _decode(directory, found) if found["version"] == VERSION else None
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        return _damaged(directory, error, tell=tell)


def _damaged(directory: Path, error: Exception, *, tell: bool) -> Index | None:
    if tell:
        logger.warning("%s: the cache is damaged (%s); the runs are read anew.", directory, error)
    return None


def _decode(directory: Path, found: dict[str, Any]) -> Index:
    kinds = [tuple(names) for names in found["kinds"]]
    entries = {
        path: Entry(
            stamp,
            problems,
            *(Part(start, rows, kinds[kind]) for start, rows, kind in parts),
        )
        if parts
        else Entry(stamp, problems, None, None)
        for path, (stamp, problems, parts) in found["runs"].items()
    }
    store = _store(directory, found["token"], found["sheets"], "rb")
    return Index(found["token"], store, entries, found["table"])


def save(directory: Path, index: Index) -> None:
    """Replaces the index, after its rows are on disk. Only with ``writing`` held."""
    index.store.sync()
    kinds: dict[tuple[str, ...], int] = {}
    runs = {}
    for path, entry in index.entries.items():
        parts = [part for part in (entry.metrics, entry.diagnostics) if part is not None]
        placed = [(p.start, p.rows, kinds.setdefault(p.columns, len(kinds))) for p in parts]
        runs[path] = entry.stamp, entry.problems, placed
    content = {
        "version": VERSION,
        "token": index.token,
        "sheets": _content(index.store),
        "kinds": list(kinds),
        "table": index.table,
        "runs": runs,
    }
    files.write(directory / "index.json", json.dumps(content, separators=(",", ":")))
    for old in directory.glob("rows.*"):
        if old != _rows(directory, index.token):
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[bool]:
    """Whether this process may write the cache meanwhile: not while another one does."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(directory / "lock", "w")  # noqa: SIM115, closed below
    except OSError:
        yield False
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def appendable(directory: Path, index: Index | None) -> tuple[str, Store]:
    """Where new rows go to, and its token. Only with ``writing`` held."""
    if index is not None:
        return index.token, _store(directory, index.token, _content(index.store), "r+b")
    token = secrets.token_hex(4)
    for name in SHEETS:
        (_rows(directory, token) / name).mkdir(mode=0o700, parents=True)
    return token, _store(directory, token, [(0, [], []) for _ in SHEETS], "r+b")


def compact(directory: Path, index: Index) -> Index:
    """``index`` without the rows of what was read again, once these are most of its file."""
    parts = [part for entry in index.entries.values() if (part := entry.metrics)]
    if 2 * sum(part.rows for part in parts) >= index.store.metrics.rows:
        return index
    token, store = appendable(directory, None)
    store.metrics.places(index.store.metrics.words)
    store.diagnostics.places(index.store.diagnostics.words)
    metrics, diagnostics = (
        {name: sheet.map(name) for name in sheet.files}
        for sheet in (index.store.metrics, index.store.diagnostics)
    )
    entries = {
        path: Entry(
            entry.stamp,
            entry.problems,
            entry.metrics and store.metrics.copy(entry.metrics, metrics),
            entry.diagnostics and store.diagnostics.copy(entry.diagnostics, diagnostics),
        )
        for path, entry in index.entries.items()
    }
    return Index(token, store, entries, index.table)


Mode = Literal["rb", "r+b"]
SheetContent = tuple[int, list[str], list[str]]
"""Rows, columns and words of a sheet."""


def _content(store: Store) -> list[SheetContent]:
    sheets = store.metrics, store.diagnostics
    return [(sheet.rows, list(sheet.files), list(sheet.words)) for sheet in sheets]


def _store(directory: Path, token: str, content: Sequence[SheetContent], mode: Mode) -> Store:
    folders = [_rows(directory, token) / name for name in SHEETS]
    return Store(*(_sheet(*each, mode) for each in zip(folders, content, strict=True)))


def _sheet(folder: Path, content: SheetContent, mode: Mode) -> Sheet:
    rows, columns, words = content

    def place(number: int) -> Path:
        return folder / f"{number}.bin"

    opened: dict[str, BinaryIO] = {
        name: place(number).open(mode) for number, name in enumerate(columns)
    }
    return Sheet(lambda number: place(number).open("w+b"), rows, opened, words)


def _rows(directory: Path, token: str) -> Path:
    return directory / f"rows.{token}"
