"""Ends a process that no longer gets on, instead of letting it hold a machine until its job ends.

What it waits for is not known then: a collective, a file system, a lock. So nothing is unwound:
the stacks of all threads are told, the failure is recorded as far as that can be done, and the
process is gone, with exit code 70.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from gptopt.state import ExitCode

SLACK = 10
"""A run that once took a tenth of the limit for a step gets more time than the limit."""
LAST_WORDS_S = 10.0

log = logging.getLogger(__name__)


class HangError(RuntimeError):
    """The run did not get on."""

    exit_code = ExitCode.HANG


class Watchdog:
    """Counts seconds without a ``beat`` while it is entered.

    They are counted, not read from a clock: a process that was stopped, or whose machine slept,
    is not taken for one that hangs. Code that never lets another thread run is not noticed.

    Args:
        limit_min: Minutes without a beat; None: never.
        log_file: Gets the stacks as well as stderr does; None: only stderr does.
        record: Records the failure; it has ten seconds, for the file system may be what hangs.
    """

    def __init__(
        self, limit_min: float | None, log_file: Path | None, record: Callable[[HangError], None]
    ) -> None:
        self.limit_s = None if limit_min is None else 60 * limit_min
        self.log_file = log_file
        self.record = record
        self._quiet = self._slowest = 0
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.limit_s is not None:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def beat(self) -> None:
        """The run got on."""
        self._slowest = max(self._slowest, self._quiet)
        self._quiet = 0

    def _watch(self) -> None:
        assert self.limit_s is not None
        while not self._over.wait(1.0):
            self._quiet += 1
            if self._quiet >= max(self.limit_s, SLACK * self._slowest):
                break
        else:
            return
        last_words = threading.Thread(target=self._tell, daemon=True)
        last_words.start()
        last_words.join(LAST_WORDS_S)
        os._exit(ExitCode.HANG)

    def _tell(self) -> None:
        error = HangError(
            f"no step, evaluated batch or checkpoint for {self._quiet} s; the stacks of its"
            " threads are in the log"
        )
        faulthandler.dump_traceback(2, all_threads=True)  # stderr, whatever Python holds for it
        log.error("%s", error)
        if self.log_file is not None:
            with open(self.log_file, "a", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        self.record(error)
