"""The identity of a run: what its configuration means, apart from what cannot change it, and
the directory that follows from it.

sha256 of canonical JSON of the composed config without the volatile nodes. Numbers are
written by value (1e-3, 0.001; 16, 16.0), so an override that repeats a default changes
nothing. The first eight hex digits end the run's name.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Collection, Mapping
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
        config: The resolved nodes. Left out are paths, cluster, profile and args, of ``data``
            ``prefetch`` (which changes the speed alone), of ``checkpoint`` all but
            ``init_from`` (saving more often changes no weight, starting from other weights
            does), and of ``logging`` all but ``eval_tokens`` (which says what the reported loss
            is a loss of).
    """
    return hashlib.sha256(_text(config).encode()).hexdigest()


class Pattern:
    """``run_id`` of many configurations that differ in the values of some leaves alone."""

    def __init__(self, config: Mapping[str, Any], leaves: Collection[str]) -> None:
        """``leaves`` are the dotted paths of those leaves; ``config`` is any of them."""
        blank = copy.deepcopy(dict(config))
        for path in leaves:
            *parents, last = path.split(".")
            node = blank
            for part in parents:
                node = node[part]
            node[last] = f"\0{path}\0"
        marks = {json.dumps(f"\0{path}\0"): path for path in leaves}
        text = _text(blank)
        parts = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
        self._fixed = [part for part in parts if part not in marks]
        self.leaves = [marks[part] for part in parts if part in marks]
        """Those that count, in the order of the text that is hashed."""

    def run_id(self, texts: Collection[str]) -> str:
        """The identity of the one whose ``leaves`` have these ``text_of``."""
        parts = [part for pair in zip(self._fixed, texts, strict=False) for part in pair]
        return hashlib.sha256("".join([*parts, self._fixed[-1]]).encode()).hexdigest()


def text_of(value: Any) -> str:
    """A value as it is hashed."""
    return json.dumps(_canonical(value), sort_keys=True, ensure_ascii=True)


def run_name(given: str, run_id: str) -> str:
    """``paths.run_name``, made to end in the identity."""
    digits = run_id[:DIGITS]
    return given if given.endswith(digits) else f"{layout.safe_name(given)[:110]}-{digits}"


def run_directory(config: Config) -> Path:
    """Where the run of ``config`` lives."""
    return layout.run_dir(
        config.paths.output_dir,
        config.model.name,
        config.data["name"],
        config.optimizer.optimizer_params["name"],
        config.paths.run_name,
    )


def _text(config: Mapping[str, Any]) -> str:
    kept = {node: config[node] for node in IDENTITY_NODES}
    kept["data"] = {key: value for key, value in config["data"].items() if key != "prefetch"}
    kept["init_from"] = config["checkpoint"]["init_from"]
    kept["eval_tokens"] = config["logging"]["logging_params"]["eval_tokens"]
    return text_of(kept)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
