"""ADOPT: Adam that normalises by the second moment of before, and then averages.

Source: Taniguchi et al. (2024), "ADOPT: modified Adam can converge with any beta2 with the
optimal rate", Algorithm 2 (clipped). The first gradient only starts v; the paper's step
count is therefore t - 1 here. Decay applies at that first step too, unlike in the
authors' code.

    v <- G^2                                          at the first gradient      (0)
    N  = G / max(sqrt(v), eps), clipped to +-(t - 1)^(1/4)                       (1)
    m <- b1 m + (1 - b1) N                                                       (2)
    W <- (1 - lr wd) W - lr m                                 lr and wd: base.py (3)
    v <- b2 v + (1 - b2) G^2                                                     (4)
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import entrywise


class Adopt(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The m of equation (2); 0 at the first gradient."""
        if not state:
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = grad.square()  # (0)
            return torch.zeros_like(grad)
        b1, b2 = group["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        bound = (group["step"] - 1) ** 0.25
        normalised = (grad / v.sqrt().clamp_(min=group["eps"])).clamp_(-bound, bound)  # (1)
        m.lerp_(normalised, 1 - b1)  # (2)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)  # (4)
        return m  # (3)


width_rule = entrywise


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: Positive, weight_decay: NonNegative
) -> Adopt:
    """See hydra_conf/optimizer/adopt.yaml for the settings."""
    return Adopt(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
