"""Run directories -> one row per run and one row per logged event.

Everything is read from the files of a run: never from SLURM, a tracker or the name of a
directory. Whatever cannot be read is left out and counted in ``Runs.problems``; no content
raises. docs/results.md describes the columns; they are an interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gptopt import layout
from gptopt.results.runs import Runs, records, swept

__all__ = ["Paths", "Runs", "load", "load_some", "records", "swept"]

Paths = str | Path | Iterable[str | Path]


def load(paths: Paths, *, cache: bool = True) -> Runs:
    """Reads every run directory at or below ``paths``.

    Args:
        paths: One or several directories. Links to run directories (``multirun/``) count,
            other links are not followed. A run found twice is read once.
        cache: Whether what is read of a large tree is kept in the user's cache directory, so
            that only what changed is read the next time. Run directories are never written to.
    """
    # Here, so that importing gptopt.results costs nothing.
    from gptopt.results.tree import read_trees

    roots = [paths] if isinstance(paths, (str, Path)) else paths
    return read_trees([Path(root) for root in roots], cache=cache)


def load_some(paths: Paths) -> Runs:
    """What ``load`` reads.

    Raises:
        ValueError: There is no run; what was found instead is said.
    """
    found = load(paths)
    if found.runs.empty:
        listed = [paths] if isinstance(paths, (str, Path)) else paths
        reasons = "".join(f"\n{p.path}: {p.problem}" for p in found.problems.itertuples())
        raise ValueError(
            f"No run below {', '.join(map(str, listed))}. A run is a directory with a "
            f"{layout.RESOLVED}, as run_hydra.py writes it.{reasons}"
        )
    return found
