"""What a tracker is, and what it is told about its run.

A tracker is one file here and one in hydra_conf/logging/. The file has

    build(run: RunInfo, *, <the keys of its YAML>) -> Tracker

and runs in a process of its own (``follow``), so it may wait, raise and use any package.
Every tracker has the key ``finish_timeout``: the seconds it gets once training has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from gptopt import layout
from gptopt.files import read_json


class Tracker(Protocol):
    """A further place for the metrics of one run."""

    def log(self, row: dict[str, float]) -> None:
        """Takes the numbers of one logged step; ``row["step"]`` may go back after a resume."""

    def finish(self, state: str) -> str | None:
        """Stores everything; ``state`` is the state in which the run ended.

        Returns:
            What the user must know because it is not as they asked, or None.
        """


@dataclass(frozen=True)
class RunInfo:
    """A run as its directory describes it."""

    path: Path
    run_id: str
    """sha256 of the configuration, 64 hex digits: the same in all attempts."""
    sweep: str | None
    config: dict[str, Any]
    """resolved.yaml"""
    provenance: dict[str, Any]
    """run.json; empty where there is none."""

    @classmethod
    def read(cls, path: Path) -> RunInfo:
        """Reads the run directory ``path``.

        Raises:
            OSError: ``path`` is not a run directory.
        """
        config = yaml.safe_load((path / layout.RESOLVED).read_text(encoding="utf-8"))
        return cls(
            path=path,
            run_id=config["derived"]["run_id"],
            sweep=config["paths"]["sweep"],
            config=config,
            provenance=read_json(path / layout.PROVENANCE) or {},
        )
