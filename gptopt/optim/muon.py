"""Muon: orthogonalised momentum, by Newton-Schulz or another ``polar`` of linalg.py.

Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers"; the scale match_rms is
from Liu et al. (2025), "Muon is scalable for LLM training", shape from Bernstein and Newhouse
(2024), "Old optimizer, new norm: an anthology".
G is the gradient of an (m, n) weight W, B its momentum buffer.

    B <- mu B + (1 - mu) G                       (1)
    N  = mu B + (1 - mu) G, or B                 (2) Nesterov look-ahead, or without it
    O  = U V^T  where  N = U S V^T               (3)
    W <- (1 - lr wd) W - lr ratio scale O        (4) lr and wd: base.py; ratio: muon_lr_ratio

    original    scale = sqrt(max(1, m / n))
    shape       scale = sqrt(m / n): inputs of root mean square 1 change outputs by lr ratio
                at most, whatever the shape; for a wide matrix a shorter step than original
    match_rms   scale = 0.2 sqrt(max(m, n)): entries of O have root mean square
                1 / sqrt(max(m, n)), those of AdamW's update about 0.2 to 0.4
    none        scale = 1
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptopt.config.types import Count, Decay, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group, MatrixOptimizer, orthogonal
from gptopt.optim.common.width import matched, no_rule, spectral


class Muon(MatrixOptimizer):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The scaled O of equation (4)."""
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"]
        buffer.lerp_(grad, 1 - group["momentum"])  # (1)
        lookahead = grad.lerp_(buffer, group["momentum"]) if group["nesterov"] else buffer  # (2)
        size = group["muon_lr_ratio"] * length(group["scale"], *grad.shape[-2:])
        return orthogonal(lookahead, group).mul_(size)  # (3), (4)


def length(rule: str, m: int, n: int) -> float:
    """The scale of equation (4) for an (m, n) matrix."""
    return {
        "original": max(1, m / n) ** 0.5,
        "shape": (m / n) ** 0.5,
        "match_rms": 0.2 * max(m, n) ** 0.5,
        "none": 1.0,
    }[rule]


def width_rule(group: Group) -> float:
    """``scale`` says whether the spectral norm of a step or the size of its entries is fixed."""
    if group["cautious"]:
        raise no_rule("muon", "cautious=false")  # a mask aligns O with G
    return matched(group) if group["scale"] == "match_rms" else spectral(group)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    scale: Literal["original", "shape", "match_rms", "none"],
    muon_lr_ratio: Positive,
    cautious: bool,
    weight_decay: NonNegative,
) -> Muon:
    """See hydra_conf/optimizer/muon.yaml for the settings."""
    return Muon(
        groups,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        polar=polar,
        ns_steps=ns_steps,
        ns_dtype=ns_dtype,
        scale=scale,
        muon_lr_ratio=muon_lr_ratio,
        cautious=cautious,
        weight_decay=weight_decay,
    )
