"""Adafactor: Adam's second moment from its row and column means, steps relative to W.

Source: Shazeer and Stern (2018), "Adafactor: adaptive learning rates with sublinear memory
cost", Algorithms 4 and 5 without momentum, in the form of torch.optim.Adafactor, where eps1
bounds the estimate instead of being added to G^2. The paper's bound 1 / sqrt(t) of the step
size is left out: the step size is the schedule's.

    b   = 1 - t^-decay_rate                                                 (1)
    r  <- b r + (1 - b) row means of G^2,   c <- likewise column means      (2)
    V   = r c^T / max(mean(r), eps1), at least eps1^2                       (3)
    U   = G / sqrt(V)                                                       (4)
    U  <- U / max(1, RMS(U) / clip)                                         (5)
    W  <- (1 - lr wd) W - lr max(eps2, RMS(W)) U                            (6) lr, wd: base.py

Of a vector V itself is averaged in the place of (2) and (3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import NonNegative, Positive
from gptopt.optim.common.base import Group, UpdateRule, gradients
from gptopt.optim.common.width import relative


class Adafactor(UpdateRule):
    """Any shape; of more than two dimensions the last two are factored."""

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """What lr multiplies in equation (6)."""
        grad = gradients(params)
        new = group["step"] ** -group["decay_rate"]  # (1): 1 - b
        update = grad * _second_moment(grad.square(), state, new, group["eps1"]).rsqrt_()  # (4)
        update.div_((_rms(update) / group["clip"]).clamp_(min=1))  # (5)
        return update.mul_(_rms(torch.stack(params)).clamp_(min=group["eps2"]))  # (6)


def _second_moment(square: Tensor, state: dict[str, Tensor], new: float, eps1: float) -> Tensor:
    if square.ndim == 2:  # vectors
        v = state.setdefault("exp_avg_sq", torch.zeros_like(square)).lerp_(square, new)
    else:
        rows, columns = square.mean(-1, keepdim=True), square.mean(-2, keepdim=True)
        r = state.setdefault("row", torch.zeros_like(rows)).lerp_(rows, new)  # (2)
        c = state.setdefault("column", torch.zeros_like(columns)).lerp_(columns, new)
        v = r * c / r.mean(-2, keepdim=True).clamp_(min=eps1)  # (3)
    return v.clamp(min=eps1**2)


def _rms(stacked: Tensor) -> Tensor:
    """Root mean square of each of the stacked, in a shape that multiplies them."""
    return stacked.square().mean(dim=tuple(range(1, stacked.ndim)), keepdim=True).sqrt_()


width_rule = relative  # (6)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    decay_rate: Positive,
    clip: Positive,
    eps1: Positive,
    eps2: NonNegative,
    weight_decay: NonNegative,
) -> Adafactor:
    """See hydra_conf/optimizer/adafactor.yaml for the settings."""
    return Adafactor(
        groups,
        lr=lr,
        decay_rate=decay_rate,
        clip=clip,
        eps1=eps1,
        eps2=eps2,
        weight_decay=weight_decay,
    )
