"""Lion: the sign of a mixture of momentum and gradient.

Source: Chen et al. (2023), "Symbolic discovery of optimization algorithms", Algorithm 2.
G is the gradient, M its average.

    C  = b1 M + (1 - b1) G                   (1)
    W <- (1 - lr wd) W - lr sign(C)          (2) lr and wd: base.py
    M <- b2 M + (1 - b2) G                   (3)
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import entrywise


class Lion(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """sign(C); 0 where C is 0."""
        if not state:
            state["exp_avg"] = torch.zeros_like(grad)
        b1, b2 = group["betas"]
        average = state["exp_avg"]
        sign = torch.lerp(average, grad, 1 - b1).sign_()  # (1)
        average.lerp_(grad, 1 - b2)  # (3)
        return sign  # (2)


width_rule = entrywise


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, cautious: bool, weight_decay: NonNegative
) -> Lion:
    """See hydra_conf/optimizer/lion.yaml for the settings."""
    return Lion(groups, lr=lr, betas=betas, cautious=cautious, weight_decay=weight_decay)
