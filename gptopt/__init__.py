"""gptopt: compare optimizers on GPT pre-training.

    config = gptopt.compose(["optimizer=muon", "optimizer.optimizer_params.lr=0.02"])
    result = gptopt.train(config)

Importing this package imports neither Hydra nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptopt.config.compose import compose
    from gptopt.config.schema import Config
    from gptopt.run import RunResult, train

__all__ = ["Config", "RunResult", "compose", "train"]

_HOMES = {
    "compose": "gptopt.config.compose",
    "Config": "gptopt.config.schema",
    "train": "gptopt.run",
    "RunResult": "gptopt.run",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "results":
        return importlib.import_module("gptopt.results")
    if name not in _HOMES:
        raise AttributeError(f"module 'gptopt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
