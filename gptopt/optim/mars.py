"""MARS-AdamW: AdamW on gradients corrected by their own change, a variance reduction.

Source: Yuan et al. (2024), "MARS: unleashing the power of variance reduction for training
large models", in its approximate form: G' is the gradient of the step before, on that step's
batch. The exact form takes it on this step's batch, a second backward pass, which is not
offered here. The authors' code leaves vectors to AdamW and starts from G' = 0.

    C  = G + gamma b1 / (1 - b1) (G - G'),   G' = G at the start          (1)
    C <- C / max(1, |C|)                                                  (2)
    U  = Adam's direction for C in the place of G                         (3) moments.py
    W <- (1 - lr wd) W - lr U                                             (4) lr and wd: base.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.base import Group, UpdateRule
from gptopt.optim.moments import adam_direction


class Mars(UpdateRule):
    """Any shape. The norm of equation (2) is the Frobenius norm of one parameter."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The U of equation (3)."""
        if not state:
            state["previous_grad"] = grad.clone()
        b1, _ = group["betas"]
        change = grad - state["previous_grad"]
        state["previous_grad"].copy_(grad)
        corrected = grad.add_(change, alpha=group["gamma"] * b1 / (1 - b1))  # (1)
        norm = torch.linalg.vector_norm(corrected, dim=tuple(range(1, grad.ndim)), keepdim=True)
        return adam_direction(corrected.div_(norm.clamp_(min=1)), state, group)  # (2), (3)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    gamma: NonNegative,
    eps: NonNegative,
    cautious: bool,
    weight_decay: NonNegative,
) -> Mars:
    """See hydra_conf/optimizer/mars.yaml for the settings."""
    return Mars(
        groups,
        lr=lr,
        betas=betas,
        gamma=gamma,
        eps=eps,
        cautious=cautious,
        weight_decay=weight_decay,
    )
