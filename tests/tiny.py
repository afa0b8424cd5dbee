"""A run of a fraction of a second, processes to run and hurt it in, and what is compared after.

``start`` forks from a process that has imported everything already, so a fresh process of a
run costs a tenth of a second instead of some seconds.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import gptopt
from gptopt import gradient, layout
from gptopt.config.identity import run_directory
from gptopt.config.schema import Config
from gptopt.run import execute

STEPS = 24
SETTINGS = (
    "data=grammar",
    "data.tokens=20000",
    "data.words=100",
    "data.val_split=2000",
    "model.config.n_layer=1",
    "model.config.n_embd=32",
    "model.config.n_head=2",
    "model.config.block_size=32",
    "model.config.dropout_embd=0.1",
    "model.config.dropout_attn=0.1",
    "model.config.dropout_resid=0.1",
    f"training.training_params.max_steps={STEPS}",
    "training.training_params.batch_size=2",
    "training.training_params.accumulation_steps=2",
    "training.training_params.max_grad_norm=0.5",
    "logging.logging_params.log_interval=1",
    "logging.logging_params.eval_interval=6",
    "logging.logging_params.eval_tokens=500",
    "checkpoint.save_interval=4",
    "cluster.threads=1",
)
POINT = {  # the same in a sweep file, without dropout and its steps left open
    "data": "grammar",
    "data.tokens": 20000,
    "data.val_split": 2000,
    "model.config.n_layer": 1,
    "model.config.n_embd": 16,
    "model.config.n_head": 1,
    "bs": 2,
    "context_length": 32,
    "logging.logging_params.eval_tokens": 1024,
}
TIMES = {"seconds", "tokens_per_second", "step_ms", "optimizer_ms"}


def tiny(output: Path, *overrides: str) -> Config:
    """The smallest run that has dropout, clipping and two forwards a step, all of it random."""
    return gptopt.compose([*SETTINGS, f"paths.output_dir={output}", *overrides])


# --- what a run left ----------------------------------------------------------------------------


def rows(run: Path) -> list[dict]:
    """Train and eval rows of all attempts without their times.

    Of an attempt the rows count up to the start step of every later one. What follows the last
    newline of a file is a row that a kill has cut.
    """
    kept: list[dict] = []
    for path in sorted(run.glob("metrics.*.jsonl")):
        found = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        if found:
            kept = [row for row in kept if row["step"] <= found[0]["start_step"]]
        kept += [row for row in found if row["event"] in ("train", "eval")]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in kept]


def marker(run: Path, state: str = "completed") -> dict:
    """Content of the terminal marker."""
    return json.loads((run / f"{state}.json").read_text())


def result(run: Path) -> tuple[str, list[dict], dict, dict]:
    """All that must be equal in two runs that trained the same: weights, curve, final, best."""
    ended = marker(run)
    return ended["weights"], rows(run), ended["final"], ended["best"]


def status(run: Path) -> dict:
    """Content of status.json."""
    return json.loads((run / "status.json").read_text())


def snapshot(run: Path) -> dict[str, tuple[int, str]]:
    """Time of modification and content of every file of a run."""
    return {
        str(path.relative_to(run)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in run.rglob("*")
        if path.is_file()
    }


def checkpoints(run: Path) -> list[str]:
    """Names in the checkpoint directory."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


# --- processes ----------------------------------------------------------------------------------

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "torch._dynamo", "gptopt.training", "gptopt.run"])


def _process(config: Config, log: Path, setup: Callable[[], None] | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if setup is not None:
        setup()
    sys.exit(int(execute(config)[0]))


def start(
    config: Config, log: Path | str = os.devnull, setup: Callable[[], None] | None = None
) -> multiprocessing.Process:
    """A process that runs ``config``, says what it says into ``log`` and ends as run_hydra.py does.

    Args:
        config: What to run.
        log: Standard output and error are appended to it.
        setup: Called in the new process first; a function of a module, or a partial of one.
    """
    process = _FORKS.Process(target=_process, args=(config, Path(log), setup), daemon=True)
    process.start()
    return process


def end(process: multiprocessing.Process, timeout: float = 120.0) -> int:
    """The exit code, or minus the signal, of a process that ends by itself."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the run did not end within {timeout} s")
    return process.exitcode


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Waits until something has happened in another process."""
    limit = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"{condition} did not become true within {timeout} s")
        time.sleep(0.01)


# --- faults at an exact place -------------------------------------------------------------------


def in_step(step: int, action: Callable[[], None]) -> mock._patch:
    """While entered, calls ``action`` in the middle of ``step``: in its second forward pass.

    Steps are counted from 1 and from the time of entering.
    """
    calls, loss = 0, gradient.training_loss

    def interrupted(*args, **settings):
        nonlocal calls
        calls += 1
        if calls == 2 * step:
            action()
        return loss(*args, **settings)

    return mock.patch.object(gradient, "training_loss", interrupted)


def signal_in_step(step: int, number: int) -> None:
    """A ``setup`` of ``start``: the process gets a signal in the middle of ``step``."""
    in_step(step, lambda: os.kill(os.getpid(), number)).start()


def stopped_at(config: Config, step: int) -> Path:
    """The directory of a run that was asked to stop in the middle of ``step``."""
    with in_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        stopped = gptopt.train(config)
    assert (stopped.state, stopped.step) == ("preempted", step)
    return run_directory(config)


def flip_byte(path: Path, offset: int = -1000) -> None:
    """Damages a file as a failing disk does: same size, same time."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def state_file(run: Path, step: int) -> Path:
    """Where the state of a checkpoint lies."""
    return layout.checkpoint_dir(run, step) / "state.pt"
