"""Where a run came from: code, versions, machine, and fingerprints of what it started from."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from gptopt import layout

PACKAGES = ("gptopt", "torch", "numpy", "hydra-core", "omegaconf", "submitit")
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")


def provenance(device: torch.device) -> dict[str, Any]:
    """Code version, package versions, host, device, threads and SLURM ids."""
    return {
        "git": git(),
        "versions": {"python": platform.python_version()} | _versions(),
        "command": sys.argv,
        "host": platform.node(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "slurm": {name: os.environ[name] for name in SLURM if name in os.environ},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git() -> dict[str, Any] | None:
    """Commit of the checkout and whether tracked files differ from it; None outside of git."""
    try:
        command = ["git", "-C", str(layout.PROJECT), "status", "--porcelain=v2", "--branch"]
        command += ["--untracked-files=no"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            line = next(line for line in file if line.startswith("model name"))
        return line.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def numerics(device: torch.device, world_size: int, dtype: str, compiled: bool) -> dict[str, Any]:
    """What must be equal for a resumed run to be bit-identical to one that never stopped."""
    return {
        "torch": str(torch.__version__),
        "device": device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "dtype": dtype,
        "compile": compiled,
    }


def weights_hash(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, shapes and bytes of the parameters."""
    digest = hashlib.sha256()
    for name, parameter in parameters:
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        flat = parameter.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
