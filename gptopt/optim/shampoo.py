"""Shampoo: inverse roots of the gradient's second moments on both sides, or on one.

Source: Gupta et al. (2018), "Shampoo: preconditioned stochastic tensor optimization", with
the averages, the Adam grafting and the refreshes of Shi et al. (2023), "A distributed
data-parallel PyTorch implementation of the distributed Shampoo optimizer". eps of the roots is
relative to the largest eigenvalue, as in Anil et al. (2020), "Scalable second order
optimization for deep learning". G is the gradient of an (m, n) weight W.

    A  = Adam's direction; m its average of G, bias-corrected             (1) moments.py
    L <- b2 L + (1 - b2) G G^T,   R <- b2 R + (1 - b2) G^T G              (2)
    P(X, p) = (X + root_eps max(eig X) I)^(-1/p) of bias-corrected X      (3) every f steps
    U  = P(L, 4) m P(R, 4)                                                (4) sides: both
    U  = P(L, 2) m, if m <= n, else m P(R, 2)                             (5) sides: smaller
    U <- U |A| / |U|                                                      (6) graft: adam
    W <- (1 - lr wd) W - lr U                                             (7) lr, wd: base.py
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptopt.config.types import Betas, NonNegative, Positive, PositiveInt
from gptopt.optim.common.base import Group, MatrixOptimizer
from gptopt.optim.common.moments import adam_direction
from gptopt.optim.common.width import no_rule, spectral


class Shampoo(MatrixOptimizer):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The U of equation (6), or of (4) or (5)."""
        (b1, b2), t = group["betas"], group["step"]
        adam = adam_direction(grad, state, group)  # (1)
        update = state["exp_avg"] / (1 - b1**t)
        sides = _sides(group["sides"], *grad.shape[-2:])
        for side in sides:
            product = grad @ grad.mT if side == "left" else grad.mT @ grad
            moment = state.setdefault(side, torch.zeros_like(product))
            moment.lerp_(product, 1 - b2)  # (2)
            if f"{side}_root" not in state or (t - 1) % group["precondition_interval"] == 0:
                corrected = moment / (1 - b2**t)
                state[f"{side}_root"] = inverse_root(
                    corrected, 2 * len(sides), eps=group["root_eps"]
                )
            root = state[f"{side}_root"]
            update = root @ update if side == "left" else update @ root  # (4), (5)
        if group["graft"] == "none":
            return update
        ratio = torch.linalg.matrix_norm(adam) / torch.linalg.matrix_norm(update).clamp(
            min=torch.finfo(update.dtype).tiny
        )
        return update * ratio[:, None, None]  # (6)


def _sides(rule: str, m: int, n: int) -> list[str]:
    if rule == "both":
        return ["left", "right"]
    return ["left"] if m <= n else ["right"]


def inverse_root(matrix: Tensor, p: int, *, eps: float) -> Tensor:
    """(X + eps max(eig X) I)^(-1/p) of symmetric positive semidefinite X: (..., n, n).

    Eigenvalues below zero, which are rounding, count as zero, and so do entries that are not
    finite: a NaN is W's to show, not eigh's to raise. Finite for X = 0.
    """
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(0, 0, 0))
    values = values.clamp(min=0) + eps * values[..., -1:]
    scaled = vectors * values.clamp(min=1e-30).pow(-1 / p).unsqueeze(-2)
    return scaled @ vectors.mT


def width_rule(group: Group) -> float:
    """Without a graft U is much like a polar factor; with one |U| is fixed, but not its rank."""
    if group["graft"] != "none":
        raise no_rule("shampoo", "graft=none")
    return spectral(group)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    eps: NonNegative,
    root_eps: Positive,
    precondition_interval: PositiveInt,
    sides: Literal["both", "smaller"],
    graft: Literal["adam", "none"],
    weight_decay: NonNegative,
) -> Shampoo:
    """See hydra_conf/optimizer/shampoo.yaml for the settings."""
    return Shampoo(
        groups,
        lr=lr,
        betas=betas,
        eps=eps,
        root_eps=root_eps,
        precondition_interval=precondition_interval,
        sides=sides,
        graft=graft,
        weight_decay=weight_decay,
    )
