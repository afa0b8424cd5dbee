"""MuonH: Muon on the sphere of matrices that are as long as W was at the start (Hyperball).

Source: Wen et al. (2025), "Hyperball optimization". Norms are Frobenius norms. G is the
gradient of a weight W, B its momentum buffer.

    B <- mu B + (1 - mu) G                                   (1)
    N  = mu B + (1 - mu) G, or B                             (2) nesterov, or without it
    O  = U V^T  where  N = U S V^T                           (3)
    W <- (1 - lr wd) W - lr R O / |O|,  R = |W| at the start (4) hyperball.py
    W <- R W / |W|                                           (5)

The scales that Muon has for a step mean nothing here: (4) divides by its length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Count, Decay, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group, orthogonal
from gptopt.optim.common.hyperball import Hyperball


class MuonH(Hyperball):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """O."""
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])  # (1)
        lookahead = grad.lerp_(buffer, group["momentum"]) if group["nesterov"] else buffer  # (2)
        return orthogonal(lookahead, group)  # (3)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> MuonH:
    """See hydra_conf/optimizer/muonh.yaml for the settings."""
    return MuonH(**locals())
