"""Prodigy: Adam that finds its own step size.

Source: Mishchenko and Defazio (2024), "Prodigy: an expeditiously adaptive parameter-free
learner", Algorithm 3. d estimates the distance from the start W0 to a solution; it never
falls. r, d and the norm of s run over all parameters together.

    g    = lr, times sqrt(1 - b2^t) / (1 - b1^t) with ``bias_correction``       (1)
    m   <- b1 m + (1 - b1) d G                                                  (2)
    v   <- b2 v + (1 - b2) d^2 G^2                                              (3)
    r   <- sqrt(b2) r + (1 - sqrt(b2)) g d^2 <G, W0 - W>                        (4)
    s   <- sqrt(b2) s + (1 - sqrt(b2)) g d^2 G                                  (5)
    W   <- (1 - g d wd) W - g d m / (sqrt(v) + d eps)                           (6)
    d   <- max(d, r / |s|_1)                                                    (7)

The paper has no decay; that of (6) is the authors' code's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, PlainOptimizer


class Prodigy(PlainOptimizer):
    """Any shape. ``d`` and ``r`` stand in every group, the same in all of them."""

    joint = True

    def __init__(self, groups: list[Group], **settings: Any) -> None:
        super().__init__(groups, {**settings, "step": 0, "d": settings["d0"], "r": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        common = self.param_groups[0]
        b3 = common["betas"][1] ** 0.5
        totals = [
            self._update(param, group, b3)
            for group in self.param_groups
            for param in group["params"]
            if param.grad is not None
        ]
        # One wait for the device per step; r and d are saved as plain numbers.
        inner, size = torch.stack(totals).double().sum(0).tolist() if totals else (0.0, 0.0)
        r = b3 * common["r"] + inner
        d = max(common["d"], r / size) if size > 0 else common["d"]  # (7)
        for group in self.param_groups:
            group.update(step=group["step"] + 1, r=r, d=d)

    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """d of (7)."""
        return {self.param_groups[0]["rule"]: {"d": self.param_groups[0]["d"]}}

    def _update(self, param: Tensor, group: Group, b3: float) -> Tensor:
        """Equations (1) to (6); returns what ``param`` adds to r, and to |s|_1."""
        assert param.grad is not None
        grad, state = param.grad, self.state[param]
        if not state:
            state.update({name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq", "s")})
            state["start"] = param.detach().clone()
        (b1, b2), t, d = group["betas"], group["step"] + 1, group["d"]
        m, v, s = state["exp_avg"], state["exp_avg_sq"], state["s"]
        rate = group["lr"]  # (1)
        if group["bias_correction"]:
            rate *= (1 - b2**t) ** 0.5 / (1 - b1**t)
        m.mul_(b1).add_(grad, alpha=(1 - b1) * d)  # (2)
        v.mul_(b2).addcmul_(grad, grad, value=(1 - b2) * d**2)  # (3)
        weight = (1 - b3) * rate * d**2
        inner = weight * (grad * (state["start"] - param)).sum()  # (4)
        s.mul_(b3).add_(grad, alpha=weight)  # (5)
        param.mul_(1 - rate * d * group["weight_decay"])  # (6)
        param.addcdiv_(m, v.sqrt().add_(d * group["eps"]), value=-rate * d)
        return torch.stack([inner, s.abs().sum()])


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    d0: Positive,
    bias_correction: bool,
    weight_decay: NonNegative,
) -> Prodigy:
    """See hydra_conf/optimizer/prodigy.yaml for the settings."""
    return Prodigy(
        groups,
        lr=lr,
        betas=betas,
        eps=eps,
        d0=d0,
        bias_correction=bias_correction,
        weight_decay=weight_decay,
    )
