"""Where a run came from: code, versions, machine, and fingerprints of what it started from."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import secrets
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptopt import files, layout
from gptopt.config.schema import Config
from gptopt.data import Corpus
from gptopt.data.loader import Loader
from gptopt.optim import RoutedOptimizer
from gptopt.source import git, optimizer_code

PACKAGES = ("gptopt", "torch", "numpy", "hydra-core", "omegaconf", "submitit")
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")

log = logging.getLogger(__name__)


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


def numerics(
    device: torch.device, world_size: int, dtype: str, compiled: bool, optimizer: str
) -> dict[str, Any]:
    """What must be equal for a resumed run to be bit-identical to one that never stopped."""
    known, brought = git() or {}, optimizer_code(optimizer)
    changes = " and changes" if known.get("dirty") else ""
    return {
        "code": f"{str(known.get('commit'))[:12]}{changes}",
        f"code of {optimizer}": brought.get("sha256", brought.get("version")),
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


def warn_if_numerics_differ(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Says what keeps a resumed run from being bit-identical to one that never stopped."""
    changed = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changed:
        log.warning("this resume is not bit-exact: %s", ", ".join(changed))


def write_provenance(
    config: Config,
    run: Path,
    model: torch.nn.Module,
    optimizer: RoutedOptimizer,
    loader: Loader,
    corpus: Corpus,
    device: torch.device,
) -> None:
    """``run.json``, once: where the run comes from and what it started from."""
    if (run / layout.PROVENANCE).exists():
        return
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = sum(row["numel"] for row in optimizer.table if row["role"] == "embedding")
    log.info("%d parameters, %d without embeddings", total, total - embedding)
    for rule, role in sorted({(row["rule"], row["role"]) for row in optimizer.table}):
        rows = [row for row in optimizer.table if (row["rule"], row["role"]) == (rule, role)]
        log.info(
            "%s drives %d %s parameters in %d tensors, lr %g, weight_decay %g",
            rule,
            sum(row["numel"] for row in rows),
            role,
            len(rows),
            rows[0]["lr"],
            rows[0]["weight_decay"],
        )
    content = {
        "run_id": config.run_id,
        "run_name": config.paths.run_name,
        "instance": secrets.token_hex(4),  # tells this directory from one of the same run
        "sweep": config.paths.sweep,
        **provenance(device),
        "optimizer_code": optimizer_code(config.optimizer.optimizer_params["name"]),
        "fingerprints": {
            "init_weights": weights_hash(model.named_parameters()),
            "data": corpus.fingerprint,
            "data_order": loader.order_fingerprint(),
            "eval": f"{config.logging.logging_params.eval_tokens} tokens of {corpus.fingerprint}",
        },
        "data": corpus.files,
        "best_loss": corpus.best_loss,
        "parameters": {
            "total": total,
            "non_embedding": total - embedding,
            "table": optimizer.table,
        },
        # 2 N forward and 4 N backward (Kaplan et al. 2020), as often as the optimizer asks for them
        "flops_per_token": 6 * (total - embedding) * optimizer.passes,
    }
    files.write_json(run / layout.PROVENANCE, content)
