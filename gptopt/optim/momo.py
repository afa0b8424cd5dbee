"""Momo: SGD with momentum whose step is Polyak's where that is shorter than lr.

Source: Chen et al. (2023), "MoMo: momentum models for adaptive learning rates", Algorithm 1,
without its estimate of the lower bound. Sums run over all parameters, which get one step; f is
the loss, F* = truncate_loss a lower bound of it. Averages start from their first value and
c = 1, or with ``bias_correction`` from 0 and c = 1 - b^t.

    M <- b M + (1 - b) G                                            (1)
    F <- b F + (1 - b) (f - sum <W, G>)                             (2)
    q  = 1 + lr wd                                                  (3)
    p  = (F - c F* + sum <W, M> / q) / sum (|M|^2 / q)              (4)
    a  = min(lr / c, max(0, p))                                     (5)
    W <- (W - a M) / q                                              (6)

The division by q is the paper's decay: (6) minimises the model of the loss with wd |W|^2 / 2
added, and p is where the model reaches F* on the way; each parameter has the q of its group.
With b = 0 and wd = 0 p is (f - F*) / |G|^2, Polyak's step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import Decay, NonNegative, Positive
from gptopt.optim.common.base import Group, gradients
from gptopt.optim.common.polyak import LossOptimizer, inner_product


class Momo(LossOptimizer):
    """Any shape. ``momentum`` is b."""

    def __init__(self, groups: list[Group], **settings: Any) -> None:
        super().__init__(groups, averages=["loss_average"], **settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        moves: list[tuple[Group, list[Tensor], Tensor]] = []
        slopes, reaches, sizes = [], [], []
        for group in self.param_groups:
            group["step"] += 1
            q = 1 + group["lr"] * group["weight_decay"]  # (3)
            for batch in self._batches(group):
                grad = gradients(batch)
                slopes.append(inner_product(batch, grad))
                with self._state(batch) as state:
                    direction = self.direction(grad, state, group)
                reaches.append(inner_product(batch, state["exp_avg"]) / q)
                sizes.append(inner_product([state["exp_avg"]], [direction]) / q)
                moves.append((group, batch, direction))
        if not moves:
            return
        common = self.param_groups[0]
        b, c = self.momentum(common), self.correction(common)
        model = self.loss - torch.stack(slopes).sum()
        f = self.average("loss_average", model, b, first=model if c == 1 else 0.0)  # (2)
        reach = f - c * common["truncate_loss"] + torch.stack(reaches).sum()
        size = torch.stack(sizes).sum()
        for group, batch, direction in moves:
            step = self.step_size(reach, size, group["lr"] / c)  # (4), (5)
            torch._foreach_sub_(batch, (direction * step).unbind())  # (6)
            torch._foreach_div_(batch, 1 + group["lr"] * group["weight_decay"])

    def momentum(self, group: Group) -> float:
        """b."""
        return group["momentum"]

    def correction(self, group: Group) -> float:
        """The c that belongs to the averages of this step."""
        return 1 - self.momentum(group) ** group["step"] if group["bias_correction"] else 1.0

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """M, which also is ``state["exp_avg"]``."""
        if not state:
            start = torch.zeros_like(grad) if group["bias_correction"] else grad.clone()
            state["exp_avg"] = start
        return state["exp_avg"].lerp_(grad, 1 - self.momentum(group))  # (1)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    bias_correction: bool,
    truncate_loss: NonNegative,
    weight_decay: NonNegative,
) -> Momo:
    """See hydra_conf/optimizer/momo.yaml for the settings."""
    return Momo(**locals())
