"""Newton-Muon: Muon on momentum preconditioned by the inputs of each layer.

Source: modded-nanogpt, track 3, "Newton-Muon"; in DAP's words the DAP-then-polar form.
G is the gradient of an (m, n) weight W, B its momentum buffer, C = X^T X / N of the N inputs
of its layer in one step out of ``refresh_every``.

    B <- mu B + (1 - mu) G                                      (1)
    N  = mu B + (1 - mu) G, or B                                (2) nesterov, or without it
    P  = (C + damping tr(C) / n I)^-1                           (3)
    O  = the polar factor of N P                                (4)
    W <- (1 - lr wd) W - lr sqrt(max(1, m / n)) O               (5) lr and wd: base.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import (
    Count,
    Decay,
    NonNegative,
    PolarMethod,
    Positive,
    PositiveInt,
    ProductDtype,
    Share,
)
from gptopt.optim.common.base import Group, gradients, orthogonal
from gptopt.optim.common.inputs import InputMoments, InputOptimizer
from gptopt.optim.common.pinv import accelerated_pinv
from gptopt.optim.common.width import spectral

ENOUGH_STEPS = 50


class NewtonMuon(InputOptimizer):
    """Matrices only."""

    def __init__(self, groups: list[Group], **settings: Any) -> None:
        inputs = InputMoments(share=settings["xtx_subsample"], whole_batches=False)
        super().__init__(groups, inputs=inputs, **settings)

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """What (5) multiplies by lr."""
        grad = gradients(params)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])  # (1)
        lookahead = grad.lerp_(buffer, group["momentum"]) if group["nesterov"] else buffer  # (2)
        m, n = grad.shape[-2:]
        preconditioned = lookahead @ self.preconditioner(params, state, group)
        return orthogonal(preconditioned, group).mul_(max(1, m / n) ** 0.5)  # (4), (5)

    def damping(self, group: Group) -> float:
        """That of (3)."""
        return group["damping"]

    def inverse(self, moment: Tensor, group: Group) -> Tensor:
        """P of (3)."""
        # Damped, no eigenvalue is below this share of the trace, let alone of the largest.
        low = group["damping"] / (moment.shape[-1] * (1 + group["damping"]))
        return accelerated_pinv(moment, rcond=low, steps=ENOUGH_STEPS, start="psd")


width_rule = spectral


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    damping: Positive,
    ema_beta: Decay,
    refresh_every: PositiveInt,
    xtx_subsample: Share | None,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> NewtonMuon:
    """See hydra_conf/optimizer/newton-muon.yaml for the settings."""
    return NewtonMuon(**locals())
