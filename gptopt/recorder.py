"""What a run writes while it trains: metrics, trackers, status, and what a person sees.

Only the main process of a run writes; in the others a recorder does nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.checkpoint import StorageError
from gptopt.config.schema import Logging
from gptopt.lease import BusyError, Lease
from gptopt.progress import RunProgress
from gptopt.tracking import start_trackers
from gptopt.tracking.metrics import MetricsFile

STATUS_INTERVAL_S = 2.0


class Recorder:
    """Rows of metrics go to the metrics file first; everything else follows.

    Args:
        settings: The logging node.
        run: Run directory.
        lease: The right to write there; None in all processes but the main one.
        start_step: Steps done before this attempt.
        max_steps: Steps of the run.
        saved_step: The newest step whose state is saved.
    """

    def __init__(
        self,
        settings: Logging,
        run: Path,
        lease: Lease | None,
        *,
        start_step: int,
        max_steps: int,
        saved_step: int,
    ) -> None:
        self.lease = lease
        self.max_steps = max_steps
        self.saved_step = saved_step
        self._status_at = 0.0
        self._step = start_step
        kind = settings.logging_params.progress if lease else "none"
        self._progress = RunProgress(kind, start_step, max_steps)
        if lease is None:
            return
        self._metrics = MetricsFile(layout.metrics_file(run, lease.attempt))
        self._metrics.write(
            {
                "event": "start",
                "attempt": lease.attempt,
                "start_step": start_step,
                "time": time.time(),
            }
        )
        self._trackers = start_trackers(settings.trackers, run, lease.attempt)

    def __enter__(self) -> Recorder:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The last row of an attempt that an error ended; its trackers stop by themselves then."""
        self._progress.__exit__()
        if self.lease is None or error is None:
            return
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with contextlib.suppress(OSError, BusyError):
            self.lease.fence()
            self._metrics.write(_stop_row(self._step, state, f"{type(error).__name__}: {error}"))
        with contextlib.suppress(OSError):
            self._metrics.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes a train, eval or diagnostics row.

        Raises:
            BusyError: A newer attempt has taken over.
        """
        if self.lease is None:
            return
        self.lease.fence()
        self._step = row["step"]
        self._metrics.write(row)
        self._trackers.poll()
        if row["event"] != "diagnostics":
            self._progress.show(row)
        if time.monotonic() - self._status_at > STATUS_INTERVAL_S:
            self._status(row["step"])

    def saved(self, saved_step: int, step: int) -> None:
        """Tells at once which step is saved, so that nobody forgets that there is one."""
        self.saved_step = saved_step
        self._status(step)

    def _status(self, step: int) -> None:
        if self.lease is None:
            return
        self._status_at = time.monotonic()
        saved_step, max_steps = self.saved_step, self.max_steps
        self.lease.status("running", step=step, max_steps=max_steps, saved_step=saved_step)

    def sync(self) -> None:
        """Brings the metrics to the disk, before a checkpoint vouches for them.

        Raises:
            OSError: The disk refuses.
        """
        if self.lease is not None:
            self._metrics.sync()

    def finish(self, step: int, state: str, reason: str) -> None:
        """The last row of an attempt that ended in good order.

        Raises:
            BusyError: A newer attempt has taken over.
            StorageError: Some rows are not on the disk.
        """
        if self.lease is None:
            return
        self.lease.fence()
        self._metrics.write(_stop_row(step, state, reason))
        try:
            self._metrics.close()
        except OSError as error:
            raise StorageError(f"cannot write {self._metrics.path}: {error.strerror}") from error

    def wait(self, seconds: float) -> None:
        """Gives the trackers time to store what they have read; after the marker is written."""
        if self.lease is not None:
            self._trackers.finish(seconds)


def _stop_row(step: int, state: str, reason: str) -> dict[str, Any]:
    return {"event": "stop", "step": step, "state": state, "reason": reason}
