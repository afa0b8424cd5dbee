"""SGD with momentum, Polyak's or Nesterov's, and decoupled weight decay.

Source: Sutskever et al. (2013), "On the importance of initialization and momentum in deep
learning", in torch.optim.SGD's form, where the buffer is a sum, not an average.

    B <- mu B + G                              (1)
    W <- (1 - lr wd) W - lr B                  (2) momentum
    W <- (1 - lr wd) W - lr (G + mu B)         (3) Nesterov; lr and wd: base.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Decay, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import gradient


class SGD(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """B, or G + mu B."""
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(grad)  # (1)
        if group["nesterov"]:
            return grad.add_(buffer, alpha=group["momentum"])  # (3)
        return buffer  # (2)


width_rule = gradient


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    weight_decay: NonNegative,
) -> SGD:
    """See hydra_conf/optimizer/sgd.yaml for the settings."""
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
