"""AdamW: Adam with decoupled weight decay, by torch's fused kernel.

Source: Loshchilov and Hutter (2019), "Decoupled weight decay regularization".

    m <- b1 m + (1 - b1) G                                          (1)
    v <- b2 v + (1 - b2) G^2                                        (2)
    W <- (1 - lr wd) W
         - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)       (3)

It also is the optimizer of ``aux``: of all that a matrix optimizer leaves aside.
"""

from __future__ import annotations

import inspect

import torch

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, PlainOptimizer
from gptopt.optim.common.width import entrywise


class AdamW(PlainOptimizer, torch.optim.AdamW):
    """torch.optim.AdamW, on the step of which torch's compiler has no claim."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


width_rule = entrywise


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: NonNegative, weight_decay: NonNegative
) -> AdamW:
    """See hydra_conf/optimizer/adamw.yaml for the settings."""
    return AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
