"""Scion: steps of one length, spectral for matrices and by sign for everything else.

Source: Pethick et al. (2025), "Training deep learning models with norm-constrained LMOs", in
the form of Crawshaw et al. (2025): steepest.py, norm max, rest sign. It needs no AdamW.

    M <- mu M + (1 - mu) G,  from M = G
    W <- (1 - lr wd) W - lr muon_lr_ratio polar(M)      matrices
    W <- (1 - lr wd) W - lr sign(M)                     the rest

The paper's radius of a layer is its norm over lr here: muon_lr_ratio is that of matrices over
that of the rest, and with decay the weights stay within 1 / wd steps.
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
    muon_lr_ratio: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    weight_decay: NonNegative,
) -> SteepestDescent:
    """See hydra_conf/optimizer/scion.yaml for the settings."""
    return SteepestDescent(norm="max", rest="sign", **locals())
