"""AdamH: Adam on the sphere of matrices that are as long as W was at the start (Hyperball).

Source: Wen et al. (2025), "Hyperball optimization". Norms are Frobenius norms.

    U  = Adam's direction                                    (1) moments.py
    W <- (1 - lr wd) W - lr R U / |U|,  R = |W| at the start (2) hyperball.py
    W <- R W / |W|                                           (3)
"""

from __future__ import annotations

from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group
from gptopt.optim.common.hyperball import Hyperball
from gptopt.optim.common.moments import adam_direction
from gptopt.optim.common.width import relative


class AdamH(Hyperball):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """U."""
        return adam_direction(grad, state, group)  # (1)


width_rule = relative  # R / |U| makes entries of U those of W


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: NonNegative, weight_decay: NonNegative
) -> AdamH:
    """See hydra_conf/optimizer/adamh.yaml for the settings."""
    return AdamH(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
