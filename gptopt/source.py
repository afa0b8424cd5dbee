"""The code that runs: which commit it is, and a copy of it that later edits do not reach."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from gptopt import files, layout
from gptopt.config import resolve

CODE = ("gptopt", "hydra_conf", "run_hydra.py")
COMMIT = "commit.json"


def git() -> dict[str, Any] | None:
    """Commit of the checkout and whether its code differs from it; None outside of git.

    Files that git does not know count where code and settings live: they may be what is run.
    """
    if (known := files.read_json(layout.PROJECT / COMMIT)) is not None:
        return known
    try:
        command = ["git", "-C", str(layout.PROJECT), "status", "--porcelain=v2", "--branch"]
        command += ["--untracked-files=all", "--", *CODE]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def optimizer_code(name: str) -> dict[str, str]:
    """Whose code runs for the optimizer ``name``, where the commit does not tell.

    Returns:
        Of a plugin ``file`` and ``sha256`` of that one file; of what a package brought, a plugin
        or a library, ``distribution`` and ``version``. Nothing of an optimizer of ours.
    """
    if (library := resolve.library_of(name)) is not None:
        return {"distribution": library, "version": metadata.version(library)}
    file = resolve.find_part("optim", name)
    if file is None or file.is_relative_to(resolve.PACKAGE):
        return {}
    found = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    if (brought := resolve.distribution_of(file)) is not None:
        found |= {"distribution": brought.metadata["Name"], "version": brought.version}
    return found


def copy(target: Path, conf: Path) -> None:
    """Copies the code into ``target``, to be put on PYTHONPATH.

    Args:
        target: A directory that does not exist.
        conf: The copy of hydra_conf that belongs to it.
    """
    caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(layout.PROJECT / "gptopt", target / "gptopt", ignore=caches)
    shutil.copy(layout.ENTRY, target)
    (target / layout.HYDRA_CONF.name).symlink_to(conf)
    files.write_json(target / COMMIT, git())
