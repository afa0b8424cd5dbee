"""Signum: the sign of the momentum. Without momentum it is signSGD.

Source: Bernstein et al. (2018), "signSGD: compressed optimisation for non-convex problems".
G is the gradient, M its average.

    M <- mu M + (1 - mu) G                   (1)
    N  = mu M + (1 - mu) G, or M             (2) Nesterov look-ahead, or without it
    W <- (1 - lr wd) W - lr sign(N)          (3) lr and wd: base.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Decay, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import entrywise


class Signum(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """sign(N); 0 where N is 0."""
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        average = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])  # (1)
        lookahead = grad.lerp_(average, group["momentum"]) if group["nesterov"] else average  # (2)
        return lookahead.sign()  # (3)


width_rule = entrywise


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    weight_decay: NonNegative,
) -> Signum:
    """See hydra_conf/optimizer/signum.yaml for the settings."""
    return Signum(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
