"""Scion with Momo: its step shrinks where the model of the loss says it leads too far.

Source: Crawshaw et al. (2025), arXiv 2510.09827: steepest.py, norm max, rest sign, truncated.

    M <- mu M + (1 - mu) G,  from M = G;  U = muon_lr_ratio polar(M) or sign(M)
    F <- mu F + (1 - mu) (f - sum <W, G>)
    a  = min(lr, max(0, (F - truncate_loss + sum <W, M>) / sum <M, U>))
    W <- (1 - lr wd) W - a U
"""

from __future__ import annotations

from gptopt.config.types import Count, Decay, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group
from gptopt.optim.common.steepest import SteepestDescent
from gptopt.optim.common.width import spectral

width_rule = spectral


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    truncate_loss: NonNegative,
    muon_lr_ratio: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> SteepestDescent:
    """See hydra_conf/optimizer/scion-momo.yaml for the settings."""
    return SteepestDescent(norm="max", rest="sign", **locals())
