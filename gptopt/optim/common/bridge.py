"""Optimizers of other libraries, by dotted name: pytorch_optimizer.Lamb, prodigyopt.Prodigy.

    optimizer_params:
      name: pytorch_optimizer.Lamb   # library and class, and the directory name in outputs/
      lr: 0.003
      settings: {betas: [0.9, 0.95], eps: 1.0e-6}   # of that class; the rest is its own default
      weight_decay: 0.1

Routing, ``aux``, schedules, checkpoints and the contract are those of every optimizer. The
update, its weight decay included, is the library's: whether it decays as ours do, resumes to
the bit or survives a gradient of zeros is what ``gptopt optim check`` tells of each.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gptopt.config.problems import nearest
from gptopt.config.types import NonNegative, Positive
from gptopt.optim.common.base import Group, PlainOptimizer


class Bridged(PlainOptimizer):
    """What a library's class lacks for our loop.

    One that evaluates other weights than it trains (Schedule-Free) says so by methods ``train``
    and ``eval``, and wants them called around each evaluation.
    """

    @contextmanager
    def eval_weights(self) -> Iterator[None]:
        """Parameters hold the weights to evaluate inside, and those in training after it."""
        if not self.has_eval_weights:
            yield
            return
        self.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.train()  # type: ignore[attr-defined]


def library_class(name: str) -> type[torch.optim.Optimizer]:
    """The class behind ``library.Class``.

    Raises:
        ValueError: The library is not installed, or has no such optimizer.
    """
    library, _, algorithm = name.partition(".")
    try:
        module = importlib.import_module(library)
    except ModuleNotFoundError:
        raise ValueError(
            f"{name}: {library} is not installed; pip install 'gptopt[optimizers]' brings it."
        ) from None
    found = {
        key: kind
        for key, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    if algorithm not in found:
        raise ValueError(
            f"{name}: {library} has no optimizer {algorithm!r}.{nearest(algorithm, found)}"
        )
    return found[algorithm]


def settings_of(name: str) -> dict[str, Any]:
    """The settings of ``library.Class`` with its own defaults, lr and weight decay apart."""
    parameters = inspect.signature(library_class(name).__init__).parameters
    apart = ("self", "params", "lr", "weight_decay")
    return {
        key: list(p.default) if isinstance(p.default, tuple) else p.default
        for key, p in parameters.items()
        if key not in apart and p.kind != inspect.Parameter.VAR_KEYWORD
    }


def params_of(name: str) -> dict[str, Any]:
    """The node optimizer_params of ``library.Class`` with that library's own settings."""
    lr = inspect.signature(library_class(name).__init__).parameters["lr"].default
    shared = {"weight_decay": 0.1, "no_decay": ["vector"]}
    return {"name": name, "lr": lr or 0.001, "settings": settings_of(name), **shared}


def build(
    groups: list[Group], *, lr: Positive, settings: dict[str, Any], weight_decay: NonNegative
) -> torch.optim.Optimizer:
    """See hydra_conf/optimizer/lamb.yaml for the settings.

    Raises:
        ValueError: The class does not take one of them.
    """
    name = groups[0]["rule"]
    kind, known = library_class(name), settings_of(name)
    for key in settings:
        if key not in known:
            raise ValueError(
                f"optimizer_params.settings.{key}: {name} takes no {key!r}.{nearest(key, known)}"
                f" It takes: {', '.join(known)}."
            )
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    metaclass: Any = type(kind)
    bridged = metaclass(kind.__name__, (kind, Bridged), {})
    optimizer = bridged(groups, lr=lr, weight_decay=weight_decay, **given)
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        optimizer.has_eval_weights = True
        optimizer.train()
    return optimizer
