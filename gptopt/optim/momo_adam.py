"""MomoAdam: Adam whose step is Polyak's, in Adam's metric, where that is shorter than lr.

Source: Chen et al. (2023), "MoMo: momentum models for adaptive learning rates", Algorithm 2,
without its estimate of the lower bound. Sums run over all parameters, which get one step; f is
the loss, F* = truncate_loss a lower bound of it. All averages start from 0.

    M <- b1 M + (1 - b1) G;   V <- b2 V + (1 - b2) G^2              (1)
    F <- b1 F + (1 - b1) (f - sum <W, G>)                           (2)
    c  = 1 - b1^t;   R = sqrt(V / (1 - b2^t)) + eps;   q = 1 + lr wd    (3)
    p  = (F - c F* + sum <W, M> / q) / sum (<M, M / R> / q)         (4)
    a  = min(lr / c, max(0, p))                                     (5)
    W <- (W - a M / R) / q                                          (6)

momo.py explains q. Never truncated and without decay this is Adam.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group
from gptopt.optim.momo import Momo


class MomoAdam(Momo):
    """Any shape."""

    def momentum(self, group: Group) -> float:
        """b1."""
        return group["betas"][0]

    def correction(self, group: Group) -> float:
        """c of (3)."""
        return 1 - group["betas"][0] ** group["step"]

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """M / R; M is ``state["exp_avg"]``."""
        if not state:
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = torch.zeros_like(grad)
        (b1, b2), t = group["betas"], group["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(grad, 1 - b1)  # (1)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        return m / (v / (1 - b2**t)).sqrt_().add_(group["eps"])  # (3)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    truncate_loss: NonNegative,
    weight_decay: NonNegative,
) -> MomoAdam:
    """See hydra_conf/optimizer/momo-adam.yaml for the settings."""
    return MomoAdam(**locals())
