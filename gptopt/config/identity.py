"""The identity of a run: what its configuration means, apart from what cannot change it, and
the directory that follows from it.

sha256 of canonical JSON of the composed config without the volatile nodes. Numbers are
written by value (1e-3, 0.001; 16, 16.0), so an override that repeats a default changes
nothing. The first eight hex digits end the run's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptopt import layout
from gptopt.config.schema import Config

IDENTITY_NODES = (
    "model",
    "data",
    "training",
    "optimizer",
    "lr_scheduler",
    "distributed",
)
DIGITS = 8


def run_id(config: Mapping[str, Any]) -> str:
    """64 hex digits that two configurations share exactly when they train the same run.

    Args:
        config: The resolved nodes. Left out are paths, cluster, profile and args, of
            ``checkpoint`` all but ``init_from`` (saving more often changes no weight, starting
            from other weights does), and of ``logging`` all but ``eval_tokens`` (which says
            what the reported loss is a loss of).
    """
    kept = {node: config[node] for node in IDENTITY_NODES}
    kept["init_from"] = config["checkpoint"]["init_from"]
    kept["eval_tokens"] = config["logging"]["logging_params"]["eval_tokens"]
    text = json.dumps(_canonical(kept), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def run_directory(config: Config) -> Path:
    """Where the run of ``config`` lives."""
    return layout.run_dir(
        config.paths.output_dir,
        config.model.name,
        config.data["name"],
        config.optimizer.optimizer_params["name"],
        config.paths.run_name,
    )


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
