"""Cautious AdamW: no entry moves against the sign of its own gradient.

Source: Liang et al. (2024), "Cautious optimizers: improving training with one line of code".
Of Adam's direction U, of which G is the gradient, those entries of another sign than G are
dropped and the rest is scaled up. Other rules have this as their key ``cautious``.

    U  = Adam's direction                                       (1) moments.py
    K  = 1 where U G > 0, else 0                                (2) base.py: cautious
    W <- (1 - lr wd) W - lr K U / max(mean(K), 0.001)           (3) lr and wd: base.py
"""

from __future__ import annotations

from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.moments import adam_direction
from gptopt.optim.common.width import entrywise


class CautiousAdamW(UpdateRule):
    """Any shape. The mean of equation (3) is that of one parameter."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """U."""
        return adam_direction(grad, state, group)  # (1)


width_rule = entrywise


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: NonNegative, weight_decay: NonNegative
) -> CautiousAdamW:
    """See hydra_conf/optimizer/cautious-adamw.yaml for the settings."""
    return CautiousAdamW(
        groups, lr=lr, betas=betas, eps=eps, cautious=True, weight_decay=weight_decay
    )
