"""Schedule-free AdamW: gradients at an interpolation, results from an average.

Source: Defazio et al. (2024), "The road less scheduled", Algorithm 1. In training the model
holds y; what it has learnt is x, which ``eval_weights`` puts in its place for an evaluation.
The paper puts the bias correction of v into the step size; we follow the authors' code, which
since corrects v. It gets x from y and z, with 8 bytes of state per parameter; here x is kept,
with 12, and neither b1 = 0 nor rounding is a special case.

    v  <- b2 v + (1 - b2) G^2                                         (1) G: gradient at y
    z  <- z - lr (G / (sqrt(v / (1 - b2^t)) + eps) + wd y)            (2)
    c   = lr_t^2 / (lr_1^2 + ... + lr_t^2)                            (3)
    x  <- (1 - c) x + c z                                             (4)
    y   = (1 - b1) z + b1 x                                           (5)

A warm-up comes from lr_scheduler; a decay takes the place of the average and is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, PlainOptimizer
from gptopt.optim.common.width import entrywise


class ScheduleFreeAdamW(PlainOptimizer):
    """Any shape."""

    has_eval_weights = True

    def __init__(self, groups: list[Group], **settings: Any) -> None:
        extra = {"step": 0, "lr_square_sum": 0.0, "averaged": False}
        super().__init__(groups, {**settings, **extra})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        for group in self.param_groups:
            assert not group["averaged"], "a step from the averaged weights"
            group["step"] += 1
            group["lr_square_sum"] += group["lr"] ** 2
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, group)

    def _update(self, y: Tensor, group: Group) -> None:
        assert y.grad is not None
        grad, state = y.grad, self.state[y]
        if not state:
            state["exp_avg_sq"] = torch.zeros_like(y)
            state["z"], state["x"] = y.detach().clone(), y.detach().clone()
        (b1, b2), t, lr = group["betas"], group["step"], group["lr"]
        v, z, x = state["exp_avg_sq"], state["z"], state["x"]
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)  # (1)
        z.addcdiv_(grad, (v / (1 - b2**t)).sqrt_().add_(group["eps"]), value=-lr)  # (2)
        z.sub_(y, alpha=lr * group["weight_decay"])
        if lr > 0:
            x.lerp_(z, lr**2 / group["lr_square_sum"])  # (3), (4)
        y.copy_(torch.lerp(z, x, b1))  # (5)

    @contextmanager
    def eval_weights(self) -> Iterator[None]:
        """The model holds x inside, and after it y, to the bit as the last step left it."""
        self.use_averages()
        try:
            yield
        finally:
            self.use_training_weights()

    def use_averages(self) -> None:
        """Puts x into the model, until ``use_training_weights``."""
        self._put(averaged=True)

    def use_training_weights(self) -> None:
        """Puts y into the model, also after a load of what was saved at the averages."""
        self._put(averaged=False)

    @torch.no_grad()
    def _put(self, *, averaged: bool) -> None:
        for group in self.param_groups:
            group["averaged"] = averaged
            for param in group["params"]:
                if param in self.state:
                    x, z = self.state[param]["x"], self.state[param]["z"]
                    param.copy_(x if averaged else torch.lerp(z, x, group["betas"][0]))  # (5)


width_rule = entrywise


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: Positive, weight_decay: NonNegative
) -> ScheduleFreeAdamW:
    """See hydra_conf/optimizer/schedule-free-adamw.yaml for the settings."""
    return ScheduleFreeAdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
