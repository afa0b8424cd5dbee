"""Weights & Biases (https://docs.wandb.ai), under the names of the metrics file.

Its files lie in ``<run>/wandb``. The key comes from the environment or from netrc, where
wandb itself looks for it, and is never passed on from here.
"""

from __future__ import annotations

import netrc
import os
import shlex
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import wandb

from gptopt.config.types import Positive
from gptopt.tracking.interface import RunInfo

Mode = Literal["online", "offline", "disabled"]

RUN_ID_DIGITS = 12


def build(
    run: RunInfo,
    *,
    project: str,
    entity: str | None,
    mode: Literal["auto", "online", "offline", "disabled"],
    tags: list[str],
    notes: str | None,
    init_timeout: Positive,
    finish_timeout: Positive,
) -> WandbTracker:
    """Starts the wandb run, or goes on with it: its id is the run's, in every attempt.

    A server that does not answer within ``init_timeout`` seconds is given up, and the run
    is stored offline instead.
    """
    directory = run.path / "wandb"
    os.environ |= {
        "WANDB_CACHE_DIR": str(directory / "cache"),
        "WANDB_DATA_DIR": str(directory / "data"),
        "WANDB_ERROR_REPORTING": "false",  # no word to anybody's server from an offline run
        "WANDB_FINISH_TIMEOUT": str(finish_timeout),
    }

    def start(mode: Mode | None) -> wandb.Run:
        return wandb.init(
            project=project,
            entity=entity,
            mode=mode,
            tags=tags,
            notes=notes,
            id=run.run_id[:RUN_ID_DIGITS] + run.provenance.get("instance", ""),
            name=run.path.name,
            group=run.sweep,
            resume="allow",
            dir=run.path,
            config={**run.config, "provenance": run.provenance},
            settings=wandb.Settings(
                init_timeout=init_timeout,
                quiet=True,
                console="off",
                save_code=False,
                disable_code=True,
                disable_git=True,  # run.json has the commit
                x_disable_stats=True,  # sampling would disturb the timings
            ),
        )

    chosen: Mode | None
    if mode != "auto":
        chosen = mode
    elif "WANDB_MODE" in os.environ:
        chosen = None  # wandb reads it
    else:
        chosen = "online" if has_credentials() else "offline"
    try:
        return WandbTracker(start(chosen), problem=None)
    except wandb.Error as error:
        if chosen == "offline":
            raise
        problem = " ".join(str(error).split())
    print(f"wandb: {problem}; going on offline", flush=True)
    wandb.teardown()  # ends the attempts to reach the server
    return WandbTracker(start("offline"), problem)


class WandbTracker:
    """One wandb run.

    Args:
        run: The run.
        problem: Why it is stored offline though the server was asked for, or None.
    """

    def __init__(self, run: wandb.Run, problem: str | None) -> None:
        self._run = run
        self._problem = problem
        # The x axis of all metrics. wandb's own step must grow for ever, whereas a
        # resumed run repeats the steps since its checkpoint.
        run.define_metric("*", step_metric="step")

    def log(self, row: dict[str, float]) -> None:
        """Adds ``row`` under the same names."""
        self._run.log(row)

    def finish(self, state: str) -> str | None:
        """Stores everything, with ``state`` among the summary values."""
        self._run.summary["state"] = state
        self._run.finish(exit_code=0 if state in ("completed", "diverged") else 1)
        folder = Path(self._run.dir).parent
        stored = f"stored offline; to upload it: wandb sync {shlex.quote(str(folder))}"
        if self._problem:
            return f"{self._problem}; {stored}"
        if self._run.offline:
            print(stored, flush=True)
        return None


def has_credentials() -> bool:
    """Whether wandb would find a key: in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(str(file)).authenticators(server) is not None
    except (OSError, netrc.NetrcParseError):
        return False
