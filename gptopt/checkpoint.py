"""Checkpoints: complete or not there, verified before they are believed.

    checkpoints/step-00001000/state.pt        all state of the main process
                              rank-0001.pt    random number generators of further processes
                              manifest.json   step, metric, size and sha256 of each file

Written into a temporary directory, synced, described by the manifest, fenced, renamed,
synced. Loaded with ``weights_only`` after its checksums; a bad one is set aside as
``.bad`` and the one before is used. When checkpoints were saved and none is good the run
stops; it never starts from scratch in silence.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from gptopt import files, layout
from gptopt.config.problems import ConfigError, Problem
from gptopt.lease import Lease
from gptopt.state import ExitCode

SCHEMA = 1
STATE = "state.pt"

log = logging.getLogger(__name__)


class StorageError(RuntimeError):
    """State cannot be saved or loaded; ends a process with 74."""

    exit_code = ExitCode.STORAGE


class _HashingFile:
    """Hashes what torch.save writes on its way to the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._size += len(view)
        try:
            return self._file.write(view)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def described(self) -> dict[str, Any]:
        return {"size": self._size, "sha256": self._hash.hexdigest()}


def save(
    lease: Lease,
    step: int,
    state: dict[str, Any],
    *,
    metric: float | None,
    extra: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """Saves ``state`` as the checkpoint of ``step``.

    Args:
        lease: The right to write; checked right before the rename.
        step: Optimizer steps done.
        state: Tensors, numbers, strings, lists and dicts (what ``weights_only`` loads).
        metric: The monitored value at this step, for ``keep_top_k``; None when unknown.
        extra: File name to state, for the generators of further processes.

    Raises:
        StorageError: The disk refuses; the checkpoints that exist are untouched.
        TypeError: ``state`` holds something that could not be loaded again.
        BusyError: A newer attempt has taken over.
    """
    target = layout.checkpoint_dir(lease.run, step)
    temporary = target.with_name(f".tmp-{target.name}-{lease.attempt}")
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        described = {
            name: _write(temporary / name, content)
            for name, content in {STATE: state, **(extra or {})}.items()
        }
        _check_loadable(temporary / STATE)
        finite = metric if metric is not None and math.isfinite(metric) else None
        manifest = {
            "schema": SCHEMA,
            "step": step,
            "attempt": lease.attempt,
            "metric": finite,
            "files": described,
        }
        files.write_json(temporary / layout.MANIFEST, manifest)
        lease.fence()
        if target.exists():  # left by an attempt that this one resumed before
            _discard(target)
        os.rename(temporary, target)
        files.sync_directory(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason, free = os.strerror(error.errno or errno.EIO), shutil.disk_usage(lease.run).free
        raise StorageError(
            f"cannot save {target}: {reason}; {free / 1e9:.2f} GB are free"
        ) from error
    return target


def _write(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)  # nothing checks it on load; the manifest does
    try:
        with open(path, "wb") as file:
            hashing = _HashingFile(file)
            try:
                torch.save(content, hashing)  # type: ignore[arg-type]
            except RuntimeError as error:  # "unexpected pos": torch hides what the disk said
                raise (hashing.error or error) from None
            file.flush()
            os.fsync(file.fileno())
    finally:
        torch.serialization.set_crc32_options(before)
    return hashing.described()


def _check_loadable(path: Path) -> None:
    """Finds out now, not at the first resume, what torch refuses to load; reads no tensor."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "the state holds something that torch.load(weights_only=True) refuses; an optimizer"
            f" may keep tensors and plain Python values only. {error}"
        ) from error


def verify(directory: Path) -> str | None:
    """What is wrong with a checkpoint directory, or None when it is as it was written."""
    described = _manifest(directory).get("files")
    if not isinstance(described, dict) or STATE not in described:
        return f"{layout.MANIFEST} is missing or damaged"
    for name, expected in described.items():
        try:
            with open(directory / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if digest != expected.get("sha256"):
            return f"{name} is not what was written (checksum differs)"
    return None


def _manifest(directory: Path) -> dict[str, Any]:
    content = files.read_json(directory / layout.MANIFEST)
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint."""

    path: Path
    step: int
    state: dict[str, Any]


def load(directory: Path, *, rank: int = 0) -> Loaded:
    """Loads a checkpoint directory onto the CPU, with the generators of process ``rank``.

    ``random`` is None for a process that there was not when it was saved.

    Raises:
        StorageError: It is damaged or of another schema.
    """
    if (problem := verify(directory)) is not None:
        raise StorageError(f"{directory}: {problem}")
    manifest = _manifest(directory)
    if manifest.get("schema") != SCHEMA:
        raise StorageError(
            f"{directory}: schema {manifest.get('schema')}, this code reads {SCHEMA}"
        )
    state = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    if rank:
        own, state["random"] = directory / rank_file(rank), None
        if own.exists():
            state |= torch.load(own, map_location="cpu", weights_only=True)
    return Loaded(directory, manifest["step"], state)


def set_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], origin: str) -> None:
    """Gives ``model`` the ``weights`` of a checkpoint; ``origin`` names it in the message.

    Raises:
        ConfigError: They are those of another model.
    """
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    unlike = [name for name in here | there if here.get(name) != there.get(name)]
    if unlike:
        first = unlike[0]
        message = (
            f"{origin}: it holds the weights of another model: {first} is"
            f" {there.get(first, 'missing')} there and {here.get(first, 'missing')} here;"
            f" {len(unlike)} of {len(here | there)} differ. Give model.config as it was there."
        )
        raise ConfigError([Problem("checkpoint", message)])
    model.load_state_dict(weights)


def rank_file(rank: int) -> str:
    """The file with the random number generators of process ``rank``."""
    return f"rank-{rank:04d}.pt"


def find(run: Path, resume: str | int, mode: str, *, saved_step: int) -> Path | None:
    """The checkpoint directory to resume from, or None for a fresh start.

    For the owner of the run: damaged checkpoints that it comes across are set aside as ``.bad``.

    Args:
        run: Run directory.
        resume: auto or latest, best, a step, or the path of a checkpoint directory.
        mode: Which metric is best: min or max.
        saved_step: Newest step that this run reported as saved; 0 when none was.

    Raises:
        StorageError: The one asked for is missing or damaged, or checkpoints were saved and
            none is good.
    """
    steps = layout.checkpoint_steps(run)
    if isinstance(resume, int):
        if resume not in steps:
            raise StorageError(f"{run} has no checkpoint of step {resume}; it has {steps}")
        return layout.checkpoint_dir(run, resume)
    if resume not in ("auto", "latest", "best"):
        return Path(resume).expanduser()
    best = ranked(run, mode) if resume == "best" else []
    for step in [*best, *(step for step in reversed(steps) if step not in best)]:
        directory = layout.checkpoint_dir(run, step)
        problem = verify(directory)
        if problem is None:
            return directory
        aside = _free_name(directory, ".bad")
        log.warning("checkpoint %s is damaged: %s; it is now %s", directory, problem, aside.name)
        os.rename(directory, aside)
    left = sorted(path.name for path in (run / layout.CHECKPOINTS).glob("step-*"))
    if left or saved_step > 0:
        raise StorageError(
            f"{run} has no good checkpoint, but once saved some (newest step told: {saved_step};"
            f" in {layout.CHECKPOINTS}/: {', '.join(left) or 'nothing'}). Restore one, or start"
            " over with +force, which moves the directory aside."
        )
    return None


def author(run: Path) -> dict[str, Any] | None:
    """The record of the attempt that saved the newest checkpoint; None where there is none."""
    for step in layout.checkpoint_steps(run)[-1:]:
        attempt = _manifest(layout.checkpoint_dir(run, step)).get("attempt")
        if isinstance(attempt, int):
            return files.read_json(layout.attempt_file(run, attempt))
    return None


def ranked(run: Path, mode: str) -> list[int]:
    """Steps with a finite metric, best first; ties go to the earlier step."""
    found = []
    for step in layout.checkpoint_steps(run):
        metric = _manifest(layout.checkpoint_dir(run, step)).get("metric")
        if isinstance(metric, (int, float)) and math.isfinite(metric):
            found.append((metric if mode == "min" else -metric, step))
    return [step for _, step in sorted(found)]


def prune(run: Path, *, keep_last: int, keep_top_k: int, mode: str) -> list[int]:
    """Removes all but the newest ``keep_last`` and the best ``keep_top_k``; returns their steps."""
    steps = layout.checkpoint_steps(run)
    keep = set(steps[-keep_last:]) | set(ranked(run, mode)[:keep_top_k])
    removed = [step for step in steps if step not in keep]
    for step in removed:
        _discard(layout.checkpoint_dir(run, step))
    return removed


def sweep(run: Path) -> None:
    """Removes what killed attempts left half-written or half-removed; for the owner of the run."""
    for leftover in (run / layout.CHECKPOINTS).glob(".t*-*"):  # .tmp- and .trash-
        shutil.rmtree(leftover, ignore_errors=True)


def set_aside_later(run: Path, step: int) -> None:
    """Renames checkpoints after ``step``: a run resumed there will write its own."""
    for later in layout.checkpoint_steps(run):
        if later > step:
            directory = layout.checkpoint_dir(run, later)
            os.rename(directory, _free_name(directory, ".superseded"))


def _discard(directory: Path) -> None:
    """Renames first, so that a kill in the middle leaves nothing that looks like a checkpoint."""
    trash = directory.with_name(f".trash-{directory.name}-{os.getpid()}")
    os.rename(directory, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _free_name(directory: Path, ending: str) -> Path:
    name, number = directory.with_name(directory.name + ending), 1
    while name.exists():
        number += 1
        name = directory.with_name(f"{directory.name}{ending}-{number}")
    return name


def random_state(device: torch.device) -> dict[str, Any]:
    """The generators of this process, in forms that ``weights_only`` loads."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            *map(float, rest),
        ],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The reverse of ``random_state``."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    array = keys.numpy().astype(np.uint32)
    np.random.set_state((name, array, int(position), int(has_gauss), cached))  # noqa: NPY002
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
