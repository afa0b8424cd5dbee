"""NorMuon: Muon whose rows (output neurons) are brought to one size by an average of theirs.

Source: Li et al. (2025), "NorMuon: making Muon more efficient and scalable", with the norm
restored as in the authors' code; the paper sets it to 0.2 sqrt(m n).
G is the gradient of an (m, n) weight W, B its momentum buffer, v a column of m numbers.

    B <- mu B + (1 - mu) G                                      (1)
    N  = mu B + (1 - mu) G, or B                                (2) nesterov, or without it
    O  = U V^T  where  N = U S V^T                              (3)
    v <- b2 v + (1 - b2) mean over a row of O^2                 (4)
    R  = O / (sqrt(v) + eps), row by row                        (5)
    W <- (1 - lr wd) W - lr sqrt(max(1, m / n)) R |O| / |R|     (6) Frobenius norms

v starts at 0 without a correction: (6) takes out what all rows have in common.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptopt.config.types import Count, Decay, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group, MatrixOptimizer, orthogonal
from gptopt.optim.common.width import spectral


class NorMuon(MatrixOptimizer):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """What (6) multiplies by lr."""
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
            state["row_square"] = grad.new_zeros(*grad.shape[:-1], 1)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])  # (1)
        lookahead = grad.lerp_(buffer, group["momentum"]) if group["nesterov"] else buffer  # (2)
        o = orthogonal(lookahead, group)  # (3)
        rows = o.square().mean(-1, keepdim=True)
        v = state["row_square"].lerp_(rows, 1 - group["beta2"])  # (4)
        even = o / v.sqrt().add_(group["eps"])  # (5)
        norms = torch.linalg.matrix_norm(torch.stack([o, even]), keepdim=True)
        kept = norms[0] / norms[1].clamp(min=torch.finfo(o.dtype).tiny)
        m, n = grad.shape[-2:]
        return even.mul_(kept * max(1, m / n) ** 0.5)  # (6)


width_rule = spectral


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    nesterov: bool,
    beta2: Decay,
    eps: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> NorMuon:
    """See hydra_conf/optimizer/normuon.yaml for the settings."""
    return NorMuon(**locals())
