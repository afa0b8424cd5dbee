"""Hyperball: steps on the sphere of matrices that are as long as W was at the start.

Source: Wen et al. (2025), "Hyperball optimization". Norms are Frobenius norms, U is what a
rule made of the gradient.

    W <- (1 - lr wd) W - lr R U / |U|,  R = |W| at the start     (1) lr and wd: base.py
    W <- R W / |W|                                               (2)

lr is the angle of one step, about. The decay of (1) is undone by (2): all that it does is to
lengthen the step by 1 / (1 - lr wd).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.optim.common.base import Group, MatrixOptimizer, gradients


class Hyperball(MatrixOptimizer):
    """Matrices only; ``direction`` is U. The start is the first step in which W has a gradient.

    A W of zeros stays one.
    """

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """R U / |U|."""
        update = self.direction(gradients(params), state, group)
        if "radius" not in state:
            state["radius"] = torch.stack(torch._foreach_norm(params))
        norm = torch.linalg.matrix_norm(update).clamp_(min=torch.finfo(update.dtype).tiny)
        return update.div_(norm[:, None, None]).mul_(state["radius"][:, None, None])  # (1)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        super().step()
        for group in self.param_groups:
            moved = [param for param in group["params"] if param.grad is not None]
            if moved:
                radii = [self.state[param]["radius"] for param in moved]
                norms = torch._foreach_norm(moved)
                torch._foreach_clamp_min_(norms, torch.finfo(moved[0].dtype).tiny)
                torch._foreach_mul_(moved, torch._foreach_div(radii, norms))  # (2)
