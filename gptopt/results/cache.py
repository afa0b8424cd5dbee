"""What was read from a tree of runs, kept, so that only what changed is read again.

    <cache home>/<hash of the root>/
      index.json        version, stamps and rows of the runs, where their metrics are
      rows.<token>.bin  the metrics (see store), appended to; a new file once half is waste
      lock              held by the one process that writes

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gptopt import files
from gptopt.results import columns, runtable
from gptopt.results.store import Block, Store

logger = logging.getLogger(__name__)

VERSION = f"2.{columns.VERSION}"
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
    metrics: Block | None
    diagnostics: Block | None


@dataclass
class Index:
    """The whole of a cache.

    Attributes:
        token: Names the file of the rows.
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
            *(Block(place, rows, kinds[kind]) for place, rows, kind in blocks or ()),
        )
        if blocks
        else Entry(stamp, problems, None, None)
        for path, (stamp, problems, blocks) in found["runs"].items()
    }
    file = open(_rows(directory, found["token"]), "rb")  # noqa: SIM115, closed with its Store
    if os.fstat(file.fileno()).st_size < found["end"]:
        raise ValueError(f"{file.name} is cut off")
    store = Store(file, found["end"], found["words"])
    return Index(found["token"], store, entries, found["table"])


def save(directory: Path, index: Index) -> None:
    """Replaces the index, after its rows are on disk. Only with ``writing`` held."""
    index.store.file.flush()
    os.fsync(index.store.file.fileno())
    kinds: dict[tuple[str, ...], int] = {}
    runs = {}
    for path, entry in index.entries.items():
        blocks = [block for block in (entry.metrics, entry.diagnostics) if block is not None]
        placed = [(b.offset, b.rows, kinds.setdefault(b.columns, len(kinds))) for b in blocks]
        runs[path] = entry.stamp, entry.problems, placed
    content = {
        "version": VERSION,
        "token": index.token,
        "end": index.store.end,
        "words": index.store.words,
        "kinds": list(kinds),
        "table": index.table,
        "runs": runs,
    }
    files.write(directory / "index.json", json.dumps(content, separators=(",", ":")))
    for old in directory.glob("rows.*.bin"):
        if old != _rows(directory, index.token):
            old.unlink(missing_ok=True)


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
    """The file that new rows go to, and its token. Only with ``writing`` held."""
    if index is None:
        token = secrets.token_hex(4)
        return token, Store(_create(_rows(directory, token)), 0)
    file = open(_rows(directory, index.token), "r+b")  # noqa: SIM115, closed with its Store
    return index.token, Store(file, index.store.end, list(index.store.words))


def compact(directory: Path, index: Index) -> Index:
    """``index`` without the rows of what was read again, once these are most of its file."""
    blocks = [b for e in index.entries.values() for b in (e.metrics, e.diagnostics) if b]
    if 2 * sum(block.size for block in blocks) >= index.store.end:
        return index
    token = secrets.token_hex(4)
    store = Store(_create(_rows(directory, token)), 0, index.store.words)
    index.store.file.flush()
    entries = {
        path: Entry(
            entry.stamp,
            entry.problems,
            entry.metrics and store.copy(entry.metrics, index.store),
            entry.diagnostics and store.copy(entry.diagnostics, index.store),
        )
        for path, entry in index.entries.items()
    }
    return Index(token, store, entries, index.table)


def _rows(directory: Path, token: str) -> Path:
    return directory / f"rows.{token}.bin"


def _create(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")
