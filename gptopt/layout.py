"""Names of the files of a run directory and of the outputs tree; nothing else spells them.

outputs/<model>/<dataset>/<optimizer>/<run_name>/
  .hydra/{config,overrides,hydra}.yaml   what was asked
  resolved.yaml                          what was derived from it
  run.json                               provenance
  lock, attempts/0001.json               who runs it
  status.json                            a hint for people and tools
  metrics.0001.jsonl                     one per attempt, append-only
  checkpoints/step-00001000/             state and a manifest with checksums
  completed.json | diverged.json | failed.json   the terminal marker
  task.log                               console log of all attempts
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
HYDRA_CONF = PROJECT / "hydra_conf"
ENTRY = PROJECT / "run_hydra.py"

COMPOSED = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"
RESOLVED = "resolved.yaml"
PROVENANCE = "run.json"
LOCK = "lock"
ATTEMPTS = "attempts"
STATUS = "status.json"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
TASK_LOG = "task.log"
STOP_FILE = "stop"
TERMINAL = {"completed": "completed.json", "diverged": "diverged.json", "failed": "failed.json"}

NAME_BYTES = 120


def safe_name(text: str) -> str:
    """One path component made of ``[A-Za-z0-9._+=-]``, at most 120 bytes, never hidden.

    A name that had to be cut ends in eight hex digits of its full text.
    """
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", text).lstrip(".-") or "_"
    if len(name) > NAME_BYTES:
        name = f"{name[: NAME_BYTES - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def run_dir(output_dir: str | Path, model: str, data: str, optimizer: str, run_name: str) -> Path:
    """``<output_dir>/<model>/<dataset>/<optimizer>/<run_name>``, absolute."""
    parts = [safe_name(part) for part in (model, data, optimizer, run_name)]
    return Path(output_dir).expanduser().absolute().joinpath(*parts)


def metrics_file(run: Path, attempt: int) -> Path:
    """Where attempt number ``attempt`` writes its metrics."""
    return run / f"metrics.{attempt:04d}.jsonl"


def metrics_files(run: Path) -> list[tuple[int, Path]]:
    """(attempt, file) of every attempt that logged something, oldest first."""
    return sorted(
        (int(match[1]), path)
        for path in run.glob("metrics.*.jsonl")
        if (match := re.fullmatch(r"metrics\.(\d+)\.jsonl", path.name))
    )


def attempt_file(run: Path, attempt: int) -> Path:
    """The record (and fencing token) of one attempt."""
    return run / ATTEMPTS / f"{attempt:04d}.json"


def attempt_numbers(run: Path) -> list[int]:
    """Numbers of all attempts so far, ascending."""
    found = (re.fullmatch(r"(\d+)\.json", path.name) for path in (run / ATTEMPTS).glob("*.json"))
    return sorted(int(match[1]) for match in found if match)


def checkpoint_dir(run: Path, step: int) -> Path:
    """The checkpoint of optimizer step ``step``."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint directory, ascending; not yet verified."""
    found = (re.fullmatch(r"step-(\d+)", path.name) for path in (run / CHECKPOINTS).glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def is_run(directory: Path) -> bool:
    """Whether ``directory`` is a run directory: it holds what was derived for a run."""
    return (directory / RESOLVED).is_file()


def find_runs(root: str | Path) -> Iterator[Path]:
    """Run directories at or below ``root``, in sorted order; links are not followed."""
    root = Path(root)
    if is_run(root):
        yield root
        return
    if not root.is_dir():
        return
    for child in sorted(root.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from find_runs(child)
