"""NAdamW: Adam with a Nesterov look-ahead and decoupled weight decay.

Source: Dozat (2016), "Incorporating Nesterov momentum into Adam", with b1 constant, as in
AlgoPerf's NAdamW. torch.optim.NAdam warms b1 up instead (``momentum_decay``), and with
``momentum_decay=0`` uses b1 / 2; its ``momentum_decay=1e9`` is the rule below.

    m <- b1 m + (1 - b1) G                                          (1)
    v <- b2 v + (1 - b2) G^2                                        (2)
    n  = b1 m / (1 - b1^(t+1)) + (1 - b1) G / (1 - b1^t)            (3)
    W <- (1 - lr wd) W - lr n / (sqrt(v / (1 - b2^t)) + eps)        (4) lr and wd: base.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import entrywise


class NAdamW(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The n of equation (3) over the root of the bias-corrected v."""
        if not state:
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = torch.zeros_like(grad)
        (b1, b2), t = group["betas"], group["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(grad, 1 - b1)  # (1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)  # (2)
        root = (v / (1 - b2**t)).sqrt_().add_(group["eps"])
        grad.mul_((1 - b1) / (1 - b1**t)).add_(m, alpha=b1 / (1 - b1 ** (t + 1)))  # (3)
        return grad.div_(root)  # (4)


width_rule = entrywise


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    eps: NonNegative,
    cautious: bool,
    weight_decay: NonNegative,
) -> NAdamW:
    """See hydra_conf/optimizer/nadamw.yaml for the settings."""
    return NAdamW(groups, lr=lr, betas=betas, eps=eps, cautious=cautious, weight_decay=weight_decay)
