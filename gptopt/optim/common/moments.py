"""Adam's direction, for the rules that start from it."""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.optim.common.base import Group


def adam_direction(grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
    """Updates the averages of G and G^2 and returns Adam's direction.

        m <- b1 m + (1 - b1) G
        v <- b2 v + (1 - b2) G^2
        (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        grad: G, any shape.
        state: Holds ``exp_avg`` and ``exp_avg_sq``, made here at the first call.
        group: ``betas``, ``eps`` and t as ``step``.

    Returns:
        A new tensor; zero where m is zero, also with ``eps`` 0.
    """
    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(grad)
        state["exp_avg_sq"] = torch.zeros_like(grad)
    (b1, b2), t = group["betas"], group["step"]
    m, v = state["exp_avg"], state["exp_avg_sq"]
    m.lerp_(grad, 1 - b1)
    v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    tiny = torch.finfo(grad.dtype).tiny
    return (m / (1 - b1**t)).div_((v / (1 - b2**t)).sqrt_().add_(group["eps"]).clamp_(min=tiny))
