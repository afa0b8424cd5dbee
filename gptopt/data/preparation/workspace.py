"""Whose directory it is while shards are made in it, and what an interrupted run left there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from gptopt.data.corpus import DataError
from gptopt.data.manifest import MANIFEST, UNFINISHED
from gptopt.files import read_json, sweep, sync_directory, write_json

WORK = "units"
"""Directory of tokenized units, until they are joined."""
LOCK = f"{UNFINISHED}.lock"


class Workspace:
    """Holds ``out`` for one process; as a context it gives the directory for units.

    Units of an interrupted run with the same plan stay; those of another are removed. Left in
    good order, the directory is finished; left by an error, it stays unfinished.

    Raises:
        DataError: ``out`` holds something else, or another process is at work in it.
    """

    def __init__(self, out: Path, plan: dict[str, Any]) -> None:
        self.out, self.plan = out, plan

    def __enter__(self) -> Path:
        out, unfinished = self.out, self.out / UNFINISHED
        out.mkdir(parents=True, exist_ok=True)
        self._refuse_others()
        self._lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DataError(f"{out}: another `gptopt data prepare` is at work here.") from error
        self._refuse_others()  # somebody may have finished while we came
        sweep(out)
        work = out / WORK
        if read_json(unfinished) != self.plan:  # None where the last run died before it had one
            shutil.rmtree(work, ignore_errors=True)
            for leftover in [*out.glob("train_*.bin*"), *out.glob("val_*.bin*")]:
                leftover.unlink()
            write_json(unfinished, self.plan)
        (out / MANIFEST).unlink(missing_ok=True)
        work.mkdir(exist_ok=True)
        return work

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            # The mark goes last: without it, all the rest is there.
            shutil.rmtree(self.out / WORK)
            (self.out / LOCK).unlink()
            (self.out / UNFINISHED).unlink()
            sync_directory(self.out)
        os.close(self._lock)

    def _refuse_others(self) -> None:
        if (self.out / UNFINISHED).exists():
            return
        # A run killed in its first moments left the lock, or a hidden half of the mark.
        if any(f.name != LOCK and not f.name.startswith(".") for f in self.out.iterdir()):
            raise DataError(
                f"--out {self.out}: not empty, and not made by this command. Give a new "
                "directory, or remove this one."
            )
