"""MuonMax: matrices share one spectral step, as long as their nuclear norms together.

Source: Crawshaw et al. (2025), arXiv 2510.09827: steepest.py, norm hybrid. It is steepest
descent for |W|^2 = max over matrices of |W|_op^2 / muon_lr_ratio + sum over the rest of
<W, (sqrt(V) + eps) W>, and needs no AdamW. The nuclear norms come from the polar factors of
the same step, so it costs no more than Muon.

    M <- mu M + (1 - mu) G,  from M = G;   V <- b2 V + (1 - b2) G^2,  from V = G^2
    S  = sum over matrices of <M, polar(M)>
    W <- (1 - lr wd) W - lr muon_lr_ratio S polar(M)       matrices
    W <- (1 - lr wd) W - lr M / (sqrt(V) + eps)            the rest
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
    muon_lr_ratio: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> SteepestDescent:
    """See hydra_conf/optimizer/muonmax.yaml for the settings."""
    return SteepestDescent(norm="hybrid", rest="adam", **locals())
