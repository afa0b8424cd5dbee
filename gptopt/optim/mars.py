"""MARS-AdamW: AdamW on gradients corrected by their own change, a variance reduction.

Source: Yuan et al. (2024), "MARS: unleashing the power of variance reduction for training
large models". G' is the gradient at the weights before the last step. The exact form takes it
on this step's batch, by a second forward and backward pass with the same dropout; the
approximate form takes it on the last step's batch, as the G of that step. As in the authors'
code, max_grad_norm clips G and G' each on its own before (1). Theirs leaves vectors to AdamW
and starts from G' = 0.

    C  = G + gamma b1 / (1 - b1) (G - G'),   G' = G at the start          (1)
    C <- C / max(1, |C|)                                                  (2)
    U  = Adam's direction for C in the place of G                         (3) moments.py
    W <- (1 - lr wd) W - lr U                                             (4) lr and wd: base.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule, gradients
from gptopt.optim.common.moments import adam_direction
from gptopt.optim.common.width import entrywise


class Mars(UpdateRule):
    """Any shape. The norm of equation (2) is the Frobenius norm of one parameter.

    Args:
        groups: Parameter groups.
        exact: Whether G' is of this step's batch.
        settings: As for every rule.
    """

    def __init__(self, groups: list[Group], *, exact: bool, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.wants_earlier_gradient = exact
        self._earlier: Mapping[Tensor, Tensor] = {}

    def observe_earlier(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Takes the G' of the exact form."""
        self._earlier = gradients

    def forget(self) -> None:
        """The G' of a step is not that of the next."""
        self._earlier = {}

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """The U of equation (3)."""
        grad = gradients(params)
        if self.wants_earlier_gradient:
            pairs = zip(params, grad, strict=True)
            change = grad - torch.stack([self._earlier.get(param, own) for param, own in pairs])
        else:
            if "previous_grad" not in state:
                state["previous_grad"] = grad.clone()
            change = grad - state["previous_grad"]
            state["previous_grad"].copy_(grad)
        b1, _ = group["betas"]
        corrected = grad.add_(change, alpha=group["gamma"] * b1 / (1 - b1))  # (1)
        norm = torch.linalg.vector_norm(corrected, dim=tuple(range(1, grad.ndim)), keepdim=True)
        return adam_direction(corrected.div_(norm.clamp_(min=1)), state, group)  # (2), (3)


width_rule = entrywise


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    gamma: NonNegative,
    eps: NonNegative,
    exact: bool,
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
        exact=exact,
        cautious=cautious,
        weight_decay=weight_decay,
    )
