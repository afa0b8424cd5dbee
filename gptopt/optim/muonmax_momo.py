"""MuonMax with Momo: its step shrinks where the model of the loss says it leads too far.

Source: Crawshaw et al. (2025), arXiv 2510.09827: steepest.py, norm hybrid, truncated.

    M, V, S as in muonmax.py;  U = muon_lr_ratio S polar(M), or M / (sqrt(V) + eps)
    F <- mu F + (1 - mu) (f - sum <W, G>)
    a  = min(lr, max(0, (F - truncate_loss + sum <W, M>) / sum <M, U>))
    W <- (1 - lr wd) W - a U
"""

from __future__ import annotations

from gptopt.config.types import Count, Decay, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group
from gptopt.optim.common.steepest import SteepestDescent
from gptopt.optim.common.width import spectral

width_rule = spectral  # also S: the change of the loss by a step of norm 1


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    beta2: Decay,
    eps: Positive,
    truncate_loss: NonNegative,
    muon_lr_ratio: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> SteepestDescent:
    """See hydra_conf/optimizer/muonmax-momo.yaml for the settings."""
    return SteepestDescent(norm="hybrid", rest="adam", **locals())
