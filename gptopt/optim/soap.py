"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Source: Vyas et al. (2024), "SOAP: improving and stabilizing Shampoo using Adam", Algorithms
3 and 4. G is the gradient of an (m, n) weight W, Q_L (m, m) and Q_R (n, n) are orthogonal.

    m  <- b1 m + (1 - b1) G                                              (1)
    v  <- b2 v + (1 - b2) (Q_L^T G Q_R)^2                                (2)
    N   = (Q_L^T m Q_R / (1 - b1^s)) / (sqrt(v / (1 - b2^s)) + eps)      (3) s = t - 1
    W  <- (1 - lr wd) W - lr Q_L N Q_R^T                                 (4) lr and wd: base.py
    L  <- b L + (1 - b) G G^T,   R <- b R + (1 - b) G^T G                (5) b: shampoo_beta
    Q_L <- orthonormal factor of L Q_L,   Q_R likewise of R Q_R          (6) every f steps

The first gradient does (5) alone and starts Q_L and Q_R as the eigenvectors of L and R.
Before (6), as in the authors' code, the columns of Q_L and the rows of v are put in the order
of falling diag(Q_L^T L Q_L), those of Q_R and the columns of v likewise. m stays in the basis
of W: the signs of the columns, which (6) leaves open, then do not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Betas, Decay, NonNegative, Positive, PositiveInt
from gptopt.optim.common.base import Group, MatrixOptimizer


class Soap(MatrixOptimizer):
    """Matrices only. State of an (m, n) matrix: 2 (m n + m^2 + n^2) numbers."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """Q_L N Q_R^T; 0 at the first gradient."""
        outer = {"left": grad @ grad.mT, "right": grad.mT @ grad}
        if not state:
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = torch.zeros_like(grad)
            for side, product in outer.items():
                state[side] = product * (1 - group["shampoo_beta"])
                finite = product.nan_to_num(0, 0, 0)  # a NaN is W's to show, not eigh's to raise
                state[f"{side}_basis"] = torch.linalg.eigh(finite).eigenvectors.flip(-1)
            return torch.zeros_like(grad)
        (b1, b2), s = group["betas"], group["step"] - 1
        m, v = state["exp_avg"], state["exp_avg_sq"]
        q_left, q_right = state["left_basis"], state["right_basis"]
        m.lerp_(grad, 1 - b1)  # (1)
        rotated = q_left.mT @ grad @ q_right
        v.mul_(b2).addcmul_(rotated, rotated, value=1 - b2)  # (2)
        root = (v / (1 - b2**s)).sqrt_().add_(group["eps"])
        adam = (q_left.mT @ m @ q_right).div_(root * (1 - b1**s))  # (3)
        update = q_left @ adam @ q_right.mT  # (4)
        for side, product in outer.items():
            state[side].lerp_(product, 1 - group["shampoo_beta"])  # (5)
        if s % group["precondition_interval"] == 0:
            v.copy_(v.take_along_dim(_turn(state["left"], q_left).unsqueeze(-1), -2))
            v.copy_(v.take_along_dim(_turn(state["right"], q_right).unsqueeze(-2), -1))
        return update


def _turn(matrix: Tensor, basis: Tensor) -> Tensor:
    """Equation (6), in place in ``basis``; returns the order that its columns were put in."""
    image = matrix @ basis
    order = (basis * image).sum(-2).argsort(dim=-1, descending=True, stable=True)
    basis.copy_(torch.linalg.qr(image.take_along_dim(order.unsqueeze(-2), -1)).Q)
    return order


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    shampoo_beta: Decay,
    precondition_interval: PositiveInt,
    eps: Positive,
    cautious: bool,
    weight_decay: NonNegative,
) -> Soap:
    """See hydra_conf/optimizer/soap.yaml for the settings."""
    return Soap(
        groups,
        lr=lr,
        betas=betas,
        shampoo_beta=shampoo_beta,
        precondition_interval=precondition_interval,
        eps=eps,
        cautious=cautious,
        weight_decay=weight_decay,
    )
