"""AdamH: Adam on the sphere of matrices that are as long as W was at the start (Hyperball).

Source: Wen et al. (2025), "Hyperball optimization". Norms are Frobenius norms.

    U  = Adam's direction                                    (1) moments.py
    W <- (1 - lr wd) W - lr R U / |U|,  R = |W| at the start (2) lr and wd: base.py
    W <- R W / |W|                                           (3)

lr is the angle of one step, about. The decay of (2) is undone by (3): all that it does is to
lengthen the step by 1 / (1 - lr wd).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.base import Group, MatrixOptimizer, gradients
from gptopt.optim.moments import adam_direction


class AdamH(MatrixOptimizer):
    """Matrices only. The start is the first step in which W has a gradient."""

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """R U / |U|."""
        if not state:
            state["radius"] = torch.stack(torch._foreach_norm(params))
        update = adam_direction(gradients(params), state, group)  # (1)
        norm = torch.linalg.matrix_norm(update).clamp_(min=torch.finfo(update.dtype).tiny)
        return update.div_(norm[:, None, None]).mul_(state["radius"][:, None, None])  # (2)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        super().step()
        for group in self.param_groups:
            moved = [param for param in group["params"] if param.grad is not None]
            if moved:
                radii = [self.state[param]["radius"] for param in moved]
                scales = torch._foreach_div(radii, torch._foreach_norm(moved))
                torch._foreach_mul_(moved, scales)  # (3)


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: NonNegative, weight_decay: NonNegative
) -> AdamH:
    """See hydra_conf/optimizer/adamh.yaml for the settings."""
    return AdamH(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
