"""Trees of run directories -> their tables, from the cache as far as nothing changed."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gptopt.results import cache as caches
from gptopt.results import runtable
from gptopt.results.read import Problems, Row, read_run
from gptopt.results.runs import Runs, records
from gptopt.results.scan import Found, find
from gptopt.results.store import (
    MOST_COLUMNS,
    Store,
    Stored,
    diagnostics_table,
    metrics_table,
)
from gptopt.state import read_state

logger = logging.getLogger(__name__)

MANY_RUNS = 300
"""Reading as many for the first time takes a second or more."""


@dataclass
class Tree:
    """What lies at or below one root.

    Attributes:
        table: Rows of the runs.
        entries: By path, with the store that holds their rows.
    """

    table: runtable.Columns
    entries: dict[str, tuple[caches.Entry, Store]]


def read_trees(roots: Sequence[Path], *, cache: bool) -> Runs:
    """What ``load`` returns."""
    problems: Problems = Counter()
    entries: dict[str, tuple[caches.Entry, Store]] = {}
    frames = []
    for root in roots:
        with _without_collector():
            found = list(find(root, problems))
        tree = _read(os.path.realpath(root), found, cache=cache)
        frames.append(_with_states(runtable.frame(tree.table), found))
        entries |= tree.entries
    for entry, _ in entries.values():
        for path, problem, count in entry.problems:
            problems[path, problem] += count
    frames = [frame for frame in frames if len(frame)] or [runtable.frame({})]
    # Copied, joined tables are in one piece: pandas warns of a hundred single columns.
    runs = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True).copy()
    runs = _without_copies(runs.drop_duplicates("path", ignore_index=True), problems)

    def stored(kind: str) -> list[Stored]:
        return [
            Stored(run_id, getattr(entries[path][1], kind), getattr(entries[path][0], kind))
            for run_id, path in zip(runs["run_id"], runs["path"], strict=True)
        ]

    return Runs(
        runs,
        pd.DataFrame(
            [(path, problem, count) for (path, problem), count in problems.items()],
            columns=["path", "problem", "count"],
        ),
        lambda: metrics_table(stored("metrics")),
        lambda: diagnostics_table(stored("diagnostics")),
    )


def _read(root: str, found: Sequence[Found], *, cache: bool) -> Tree:
    if not cache or len(found) < caches.FEWEST_RUNS:
        return _read_anew(found, None)
    directory = caches.folder(root)
    with _without_collector():
        index = caches.load(directory)
    if index is not None and _stamps(found) == {p: e.stamp for p, e in index.entries.items()}:
        return _tree(index)
    with caches.writing(directory) as alone:
        if not alone:
            return _read_anew(found, index)
        try:
            return _update(directory, found)
        except OSError as error:
            logger.warning("%s: %s; nothing is kept.", directory, error.strerror or error)
    return _read_anew(found, None)


def _stamps(found: Sequence[Found]) -> dict[str, str]:
    return {run.path: run.stamp for run in found}


def _tree(index: caches.Index) -> Tree:
    entries = {path: (entry, index.store) for path, entry in index.entries.items()}
    return Tree(index.table, entries)


def _update(directory: Path, found: Sequence[Found]) -> Tree:
    """Reads what changed into the cache, which nobody else writes to meanwhile."""
    index = caches.load(directory, tell=True)  # again: it may have been written since
    token, store = caches.appendable(directory, index)
    entries, table = _read_changed(found, index, store, once=True)
    new = caches.Index(token, store, entries, table)
    new = caches.compact(directory, new)
    caches.save(directory, new)
    return _tree(new)


def _read_anew(found: Sequence[Found], index: caches.Index | None) -> Tree:
    """Reads what is not in ``index`` into a file that vanishes with this process."""
    store = Store.temporary()
    entries, table = _read_changed(found, index, store, once=False)
    known = index.entries if index else {}
    return Tree(
        table,
        {
            path: (entry, index.store if index and entry is known.get(path) else store)
            for path, entry in entries.items()
        },
    )


def _read_changed(
    found: Sequence[Found], index: caches.Index | None, store: Store, *, once: bool
) -> tuple[dict[str, caches.Entry], runtable.Columns]:
    """Entries and rows of all ``found``; what ``index`` does not know goes to ``store``."""
    known = index.entries if index else {}
    runs = [path for path, entry in known.items() if entry.metrics is not None]
    old = {path: place for place, path in enumerate(runs)}
    entries: dict[str, caches.Entry] = {}
    rows: list[Row | int] = []
    for run in _told(found, known):
        entry = known.get(run.path)
        row: Row | int | None = old.get(run.path)
        if entry is None or entry.stamp != run.stamp:
            with _without_collector():
                read = read_run(Path(run.path), once=once)
            problems = [(path, problem, n) for (path, problem), n in read.problems.items()]
            parts = store.append(read.rows) if read.row is not None else (None, None)
            if parts[0] and (left := read.rows.values.keys() - set(parts[0].columns)):
                words = f"measurements beyond the {MOST_COLUMNS} columns that a table can have"
                problems.append((run.path, words, len(left)))
            entry, row = caches.Entry(run.stamp, problems, *parts), read.row
        entries[run.path] = entry
        if row is not None:
            rows.append(row)
    return entries, runtable.revise(index.table if index else {}, rows)


def _told(found: Sequence[Found], known: Mapping[str, caches.Entry]) -> Iterable[Found]:
    """``found``, with a bar on a terminal while so many of them are new that one has to wait."""
    if len(found) - len(known) < MANY_RUNS or not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    bar = Console(stderr=True)
    return track(found, "reading runs", console=bar, transient=True)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Looking for cycles among thousands of small objects would take a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _with_states(runs: pd.DataFrame, found: Sequence[Found]) -> pd.DataFrame:
    """States as they are now: of runs that have not ended, the lock is part of the truth."""
    open_runs = {run.path for run in found if not run.ended}
    if open_runs.isdisjoint(runs["path"]):
        return runs
    texts = [
        (now.state, now.reason) if now else before
        for path, *before in zip(runs["path"], runs["state"], runs["reason"], strict=True)
        for now in [read_state(Path(path)) if path in open_runs else None]
    ]
    return runs.assign(state=[state for state, _ in texts], reason=[why for _, why in texts])


def _without_copies(runs: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """One row per run id. Of two, the one that was started last replaced the other."""
    copies = runs[runs["run_id"].duplicated(keep=False)]
    for _, group in copies.groupby("run_id"):
        youngest = max(records(group), key=_age)
        for path in group["path"]:
            if path != youngest["path"]:
                problems[path, f"same run as {youngest['path']}"] += 1
        runs = runs[(runs["run_id"] != youngest["run_id"]) | (runs["path"] == youngest["path"])]
    return runs.reset_index(drop=True) if len(copies) else runs


def _age(row: dict[str, Any]) -> tuple[float, int]:
    started = row["started"]
    return (-math.inf if math.isnan(started) else started, row["step"])
