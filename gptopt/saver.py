"""When state is saved while a run trains, and which saved state a start goes on from."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from gptopt import checkpoint, files, layout
from gptopt.config.schema import Checkpoint, Config, Load
from gptopt.distributed import World
from gptopt.lease import Lease
from gptopt.preempt import StopRequest
from gptopt.recorder import Recorder

MAX_FAILED_SAVES = 3

log = logging.getLogger(__name__)


class Saver:
    """When to save, and what to do when that fails.

    Args:
        settings: The checkpoint node.
        run: Run directory.
        lease: The right to write there; None in all processes but the main one.
        world: All processes decide together.
        stop: Learns how long a save takes.
        saved_step: The newest step whose state is saved.
    """

    def __init__(
        self,
        settings: Checkpoint,
        run: Path,
        lease: Lease | None,
        world: World,
        stop: StopRequest,
        *,
        saved_step: int,
    ) -> None:
        self.settings, self.run, self.lease = settings, run, lease
        self.world, self.stop = world, stop
        self._failures = 0
        self._saved_at = time.monotonic()
        self._saved_step = saved_step

    def is_due(self, step: int, is_last: bool, interval: int | None) -> bool:
        """Whether the state after ``step`` is to be saved; all processes agree."""
        if is_last:
            return self.settings.save_final
        minutes = self.settings.save_minutes
        is_late = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        is_on_step = interval is not None and step % interval == 0
        return is_on_step or (minutes is not None and self.world.any(is_late))

    def prune(self) -> None:
        """Removes the checkpoints that need not be kept."""
        keep_last, keep_top_k = self.settings.keep_last, self.settings.keep_top_k
        mode = self.settings.mode
        checkpoint.prune(self.run, keep_last=keep_last, keep_top_k=keep_top_k, mode=mode)

    def save(
        self,
        state: dict[str, Any],
        step: int,
        *,
        metric: float | None,
        recorder: Recorder,
        must_succeed: bool,
    ) -> int:
        """Saves and prunes; returns the newest saved step. A full disk is tried again later.

        Raises:
            StorageError: It failed ``MAX_FAILED_SAVES`` times in a row, or there is no later.
        """
        began = time.monotonic()
        generators = self.world.gather({"random": state["random"]})
        others = {checkpoint.rank_file(r): g for r, g in enumerate(generators) if r > 0}
        if self.lease is not None:
            try:
                recorder.sync()
                checkpoint.save(self.lease, step, state, metric=metric, extra=others)
                self.prune()
                self._failures, self._saved_step = 0, step
            except (checkpoint.StorageError, OSError) as error:
                self._failures += 1
                log.warning("%s (failure %d of %d)", error, self._failures, MAX_FAILED_SAVES)
                if must_succeed or self._failures == MAX_FAILED_SAVES:
                    raise checkpoint.StorageError(str(error)) from error
        self.world.barrier()
        self._saved_at = time.monotonic()
        self.stop.slowest_save = max(self.stop.slowest_save, self._saved_at - began)
        return self._saved_step


def resume_point(config: Config, lease: Lease) -> tuple[Path | None, Load]:
    """The checkpoint to start from, and what to take from it.

    ``resume`` and ``load`` are obeyed once: a start that finds the newest checkpoint to come from
    an attempt that was asked the same, as after a preemption, goes on from there.
    """
    resume, load = config.checkpoint.resume, config.checkpoint.load
    author = checkpoint.author(lease.run)
    if author and author.get("asked") == asked(config):
        resume, load = "auto", Load(model=True, optimizer=True, scheduler=True, data=True)
    checkpoint.sweep(lease.run)
    status = files.read_json(lease.run / layout.STATUS) or {}
    mode, saved_step = config.checkpoint.mode, status.get("saved_step", 0)
    return checkpoint.find(lease.run, resume, mode, saved_step=saved_step), load


def asked(config: Config) -> dict[str, Any]:
    """What a start was told to resume; stands in the record of its attempt."""
    return {"resume": config.checkpoint.resume, "load": vars(config.checkpoint.load)}
