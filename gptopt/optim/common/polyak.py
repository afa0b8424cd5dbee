"""For rules that look at the loss: averages of it, and Polyak's step as an upper bound.

Source: Chen et al. (2023), "MoMo: momentum models for adaptive learning rates". Momentum
averages past gradients; the same average of the past linear models of the loss, cut off at a
lower bound F* of it, says how far down the direction can lead, and a step need not go further.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gptopt.optim.common.base import Group, UpdateRule


class LossOptimizer(UpdateRule):
    """A rule whose step is one for all parameters and may depend on the loss.

    Args:
        groups: Parameter groups.
        averages: Names of the averages of numbers that it keeps. They are saved with the first
            group, as 0-dimensional float64 tensors, and None before the first step.
        settings: As for every rule.
    """

    joint = True
    wants_loss = True

    def __init__(self, groups: Iterable[Group], *, averages: list[str], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.param_groups[0].update(dict.fromkeys(averages))
        self._loss: Tensor | None = None
        self._last: tuple[Tensor, Tensor, float] | None = None

    def observe(self, loss: Tensor) -> None:
        """Takes the loss at the weights that the next step's gradients are of."""
        self._loss = loss.detach().double()

    def forget(self) -> None:
        """The loss of a step is not that of the next."""
        self._loss = None

    @property
    def loss(self) -> Tensor:
        """What was observed, float64.

        Raises:
            RuntimeError: Nothing was.
        """
        if self._loss is None:
            raise RuntimeError(
                f"{type(self).__name__} needs the loss: call observe(loss) before every step()."
            )
        return self._loss

    def average(self, name: str, value: Tensor, decay: float, *, first: Tensor | float) -> Tensor:
        """The moving average ``name`` after it has seen ``value``; it starts from ``first``."""
        home = self.param_groups[0]
        before = first if home[name] is None else home[name].to(value.device)
        home[name] = decay * before + (1 - decay) * value
        return home[name]

    def step_size(self, numerator: Tensor, denominator: Tensor, limit: float) -> Tensor:
        """``truncated``, kept for ``diagnostics``."""
        self._last = numerator, denominator, limit
        return truncated(numerator, denominator, limit)

    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """``step_size``, and ``step_share``: its part of what it would be without truncation."""
        if self._last is None:
            return {}
        size, limit = truncated(*self._last), self._last[2]
        share = size / limit if limit > 0 else torch.ones_like(size)
        return {self.param_groups[0]["rule"]: {"step_size": size, "step_share": share}}


def inner_product(one: Iterable[Tensor], other: Iterable[Tensor]) -> Tensor:
    """The sum of <a, b> over pairs, float64; each product is summed in its own precision."""
    pairs = zip(one, other, strict=True)
    return torch.stack([torch.dot(a.flatten(), b.flatten()).double() for a, b in pairs]).sum()


def truncated(numerator: Tensor, denominator: Tensor, limit: float) -> Tensor:
    """The step numerator / denominator, at most ``limit`` and never negative.

    Where the denominator is zero there is no direction, and nothing to bound.
    """
    step = (numerator / denominator).clamp(min=0, max=limit)
    return torch.where(denominator > 0, step, torch.full_like(step, limit))
