"""One run from a checked configuration to a finished directory: what may start, who owns it,
how it ended.

    train(config)   the Python API: returns a result, raises what stopped it
    execute(config) the same for a process: says what happened, returns an exit code

The same configuration always means the same directory: a completed run is skipped, an
interrupted one resumed, one that is being run by somebody else left alone. This module imports
no torch, so that all of these answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gptopt import files, layout
from gptopt.config.checks import RESUME_WORDS
from gptopt.config.identity import run_directory, run_id
from gptopt.config.problems import ConfigError, Problem
from gptopt.config.schema import Config
from gptopt.config.solver import Derived, derive
from gptopt.lease import BusyError, Lease, busy, move_aside
from gptopt.state import ExitCode, owner, read_state

if TYPE_CHECKING:
    from gptopt.data import Corpus

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
LOG_FORMAT = "%(asctime)s %(levelname).1s %(message)s"

log = logging.getLogger("gptopt")


@dataclass(frozen=True)
class RunResult:
    """How a run stands after ``train``."""

    run: Path
    state: str
    reason: str
    step: int
    final_val_loss: float | None
    best_val_loss: float | None
    skipped: bool = False  # it had ended before

    @property
    def exit_code(self) -> ExitCode:
        """0 for a result (completed or diverged), 75 for a run that should be started again."""
        done = self.state in ("completed", "diverged")
        return ExitCode.DONE if done else ExitCode.RUN_AGAIN

    @property
    def objective(self) -> float:
        """What a sweeper minimises: the final validation loss; infinite unless completed."""
        if self.state != "completed" or self.final_val_loss is None:
            return float("inf")
        return self.final_val_loss


def train(config: Config) -> RunResult:
    """Trains ``config`` in its run directory, from wherever an earlier attempt left it.

    Raises:
        ConfigError: The numbers contradict each other on this machine or corpus; or ``config``
            is no longer the run that it was composed as.
        gptopt.data.DataError: The data is missing, damaged or too small.
        BusyError: Another process runs it.
        CannotCreateError: The directory cannot be made.
        gptopt.checkpoint.StorageError: State can no longer be saved, or none can be loaded.
    """
    _check_unchanged(config)
    log.setLevel(config.logging.logging_params.level.upper())
    run = run_directory(config)
    is_main = os.environ.get("RANK", "0") == "0"
    if not config.force and (result := _ended(run)) is not None:
        return result
    if is_main and owner(run) is not None:
        raise busy(run)

    from gptopt.data import check_corpus, check_ids, open_corpus, sources_of
    from gptopt.data.mixture import windows_in
    from gptopt.preempt import StopRequest, find_deadline
    from gptopt.watchdog import Watchdog

    _check_paths(config)
    corpus = open_corpus(config.data, config.paths.data_root)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        derived = derive(
            config,
            world_size=world_size,
            windows_of=lambda context: sum(windows_in(corpus.train, context)),
        )
    except ValueError as error:
        raise ConfigError([Problem("training.training_params", f"{error}.")]) from None
    shares = check_corpus(
        corpus,
        config.data,
        context_length=derived.context_length,
        global_batch_size=derived.global_batch_size,
        samples=derived.max_steps * derived.global_batch_size,
        eval_tokens=config.logging.logging_params.eval_tokens,
    )
    for _, source in sources_of(corpus):
        check_ids(source, config.model.config["vocab_size"], in_full=True)
    if not config.force:
        _check_continues(run, derived, corpus)
    try:
        deadline = find_deadline(config.cluster.deadline)
    except ValueError as error:
        raise ConfigError([Problem("cluster.deadline", f"{error}.")]) from None

    with ExitStack() as stack:
        lease: Lease | None = None
        if is_main:
            if config.force and (aside := move_aside(run)) is not None:
                log.info("moved the earlier run aside: %s", aside)
            lease = Lease.take(run)
            stack.callback(lease.release)
            if (result := _ended(run)) is not None:  # while we waited for the lock
                return result
            stack.enter_context(_LogFile(run))
            _write_config(config, derived, run, lease)
            log.info("%s, attempt %d", run, lease.attempt)
            for line in [*derived.arithmetic, *shares]:
                log.info("%s", line)
        stop = stack.enter_context(StopRequest(run / layout.STOP_FILE, deadline))
        watchdog = stack.enter_context(
            Watchdog(
                config.cluster.hang_min,
                run / layout.TASK_LOG if lease else None,
                lambda error: _record_failure(run, lease, error) if lease else None,
            )
        )
        try:
            from gptopt.training import fit

            outcome = fit(config, derived, corpus, run, lease, stop, watchdog)
        except BaseException as error:
            if lease is not None:
                _record_failure(run, lease, error)
            raise
    return _result(run, dataclasses.asdict(outcome))


def execute(config: Config) -> tuple[ExitCode | int, RunResult | None]:
    """``train`` for a process: every way it can end becomes a message and an exit code."""
    _log_to_console()
    try:
        result = train(config)
    except Exception as error:
        code = exit_code_of(error)
        if code == ExitCode.CRASH:
            log.error("%s", traceback.format_exc())
        else:
            log.error("%s", error)
        return code, None
    except KeyboardInterrupt:
        log.error("stopped at once; the newest checkpoint stands")
        return 130, None
    words = f"{result.state}{' before; nothing to do' if result.skipped else ''}"
    loss = "" if result.final_val_loss is None else f", val_loss {result.final_val_loss:.4f}"
    log.info("%s (%s)%s: %s", words, result.reason, loss, result.run)
    if result.exit_code == ExitCode.RUN_AGAIN:
        log.info("run the same command again to go on from step %d", result.step)
    return result.exit_code, result


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a process that ``error`` ends."""
    if (code := getattr(error, "exit_code", None)) is not None:
        return ExitCode(code)
    names = {kind.__name__ for kind in type(error).__mro__}  # by name: torch may not be imported
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return ExitCode.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return ExitCode.STORAGE
    return ExitCode.CRASH


def _check_unchanged(config: Config) -> None:
    """Refuses a configuration whose directory is that of another run."""
    if run_id(dataclasses.asdict(config)) != config.run_id:
        message = (
            f"the configuration was changed after compose() made it, and {config.paths.run_name}"
            " is another run. Compose it with the change:"
            ' gptopt.compose([..., "optimizer.optimizer_params.lr=0.02"]).'
        )
        raise ConfigError([Problem("", message)])


def _check_paths(config: Config) -> None:
    """Refuses a checkpoint to start from that is not there, before anything is created."""
    checkpoint, problems = config.checkpoint, []
    initial = None if layout.is_run(run_directory(config)) else checkpoint.init_from  # used once
    for key, path in (("init_from", initial), ("resume", checkpoint.resume)):
        named = isinstance(path, str) and path not in RESUME_WORDS
        if named and not (Path(str(path)).expanduser() / layout.MANIFEST).is_file():
            message = (
                f"checkpoint.{key}={path}: there is no {layout.MANIFEST} in it; it takes a"
                f" checkpoint directory, such as RUN/{layout.CHECKPOINTS}/step-00001000."
            )
            problems.append(Problem(f"checkpoint.{key}", message))
    if problems:
        raise ConfigError(problems)


def _check_continues(run: Path, derived: Derived, corpus: Corpus) -> None:
    """Refuses to go on with other numbers than the run began with: other devices, other data."""
    from gptopt.data import DataError

    if not layout.is_run(run):
        return
    provenance = files.read_json(run / layout.PROVENANCE) or {}
    began_with = provenance.get("fingerprints", {}).get("data", corpus.fingerprint)
    if began_with != corpus.fingerprint:
        before = provenance.get("data", {})
        names = sorted(before.keys() | corpus.files.keys())
        changed = [name for name in names if before.get(name) != corpus.files.get(name)]
        raise DataError(
            f"{run} began with the data {began_with[:12]}, and this is {corpus.fingerprint[:12]}:"
            f" its files have changed ({', '.join(changed[:3]) or 'how they are split'}), or"
            " another Python brings other sources. Restore them, or start over with +force."
        )
    began = yaml.safe_load((run / layout.RESOLVED).read_text(encoding="utf-8"))["derived"]
    problems = [
        Problem(
            key,
            f"{run} began with {key} {began[key]} ({began['world_size']} processes); with"
            f" {derived.world_size} processes and this data it is {getattr(derived, key)}."
            " Start it as before, or over with +force. A run that sets global_batch_size and"
            " max_steps goes on with any number of processes.",
        )
        for key in ("global_batch_size", "context_length", "max_steps")
        if began[key] != getattr(derived, key)
    ]
    if problems:
        raise ConfigError(problems)


def _ended(run: Path) -> RunResult | None:
    """The result of a run that has one; a failed run may be tried again."""
    state = read_state(run)
    if state.state not in ("completed", "diverged"):
        return None
    marker = files.read_json(run / layout.TERMINAL[state.state]) or {}
    return _result(run, marker | {"state": state.state}, skipped=True)


def _result(run: Path, facts: dict[str, Any], *, skipped: bool = False) -> RunResult:
    return RunResult(
        run=run,
        state=facts["state"],
        reason=facts.get("reason", ""),
        step=facts.get("step", 0),
        final_val_loss=(facts.get("final") or {}).get("val_loss"),
        best_val_loss=(facts.get("best") or {}).get("val_loss"),
        skipped=skipped,
    )


def _write_config(config: Config, derived: Derived, run: Path, lease: Lease) -> None:
    """What was asked and what was derived; written by the first attempt, then left alone."""
    for marker in (layout.TERMINAL["failed"], layout.STOP_FILE):
        (run / marker).unlink(missing_ok=True)  # of the attempt before: this one tries again
    if not layout.is_run(run):
        (run / layout.COMPOSED).parent.mkdir(exist_ok=True)
        files.write(run / layout.COMPOSED, config.source.composed)
        files.write(run / layout.OVERRIDES, yaml.safe_dump(config.source.overrides))
        files.write(run / layout.HYDRA, config.source.hydra)
        resolved = dataclasses.asdict(config)
        for key in ("source", "force", "run_id"):
            del resolved[key]
        resolved["derived"] = {"run_id": config.run_id, **dataclasses.asdict(derived)}
        files.write(run / layout.RESOLVED, yaml.safe_dump(resolved, sort_keys=False))
    step = lease.before.step
    lease.status("running", step=step, max_steps=derived.max_steps, saved_step=_saved_step(run))


def _saved_step(run: Path) -> int:
    return (files.read_json(run / layout.STATUS) or {}).get("saved_step", 0)


def _record_failure(run: Path, lease: Lease, error: BaseException) -> None:
    """What a crash leaves: the error, where a later reader finds it."""
    words = traceback.format_exception_only(error)[-1].strip()
    code = 130 if isinstance(error, KeyboardInterrupt) else int(exit_code_of(error))
    if isinstance(error, BusyError):
        return  # a newer attempt owns the directory: write nothing
    status = files.read_json(run / layout.STATUS) or {}
    facts = {"reason": words, "step": status.get("step", 0), "exit_code": code}
    kept = {key: status[key] for key in ("max_steps", "saved_step") if key in status}
    try:
        if isinstance(error, KeyboardInterrupt):
            lease.status("interrupted", **facts, **kept)
        else:
            lease.finish("failed", facts | {"error": words})
            lease.status("failed", **facts, **kept)
    except (OSError, BusyError) as second:
        log.error("the failure could not be recorded: %s", second)


class _LogFile:
    """Everything that is logged also goes to the run's own log while this is entered.

    A full disk costs lines of that log, nothing more.
    """

    def __init__(self, run: Path) -> None:
        self._handler = logging.FileHandler(run / layout.TASK_LOG, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter(LOG_FORMAT))
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]

    def __enter__(self) -> None:
        log.addHandler(self._handler)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, BusyError):  # then the log is another's
            words = "".join(traceback.format_exception(error))
            record = logging.LogRecord("gptopt", logging.ERROR, "", 0, words, None, None)
            self._handler.handle(record)
        log.removeHandler(self._handler)
        with contextlib.suppress(OSError):
            self._handler.close()


def _log_to_console() -> None:
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        log.addHandler(handler)
        log.propagate = False
