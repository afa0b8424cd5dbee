"""Adam, by torch's fused kernel, its weight decay a part of the gradient.

Source: Kingma and Ba (2015), "Adam: a method for stochastic optimization". The paper has no
decay; as in torch.optim.Adam, ``weight_decay`` is that of the penalty wd |W|^2 / 2. It is the
only optimizer here whose decay is coupled: (2) and (3) average and normalise it with the rest.

    H  = G + wd W                                                   (1)
    m <- b1 m + (1 - b1) H                                          (2)
    v <- b2 v + (1 - b2) H^2                                        (3)
    W <- W - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)     (4)
"""

from __future__ import annotations

import inspect

import torch

from gptopt.config.types import Betas, NonNegative, Positive
from gptopt.optim.common.base import Group, PlainOptimizer
from gptopt.optim.common.width import entrywise, no_rule


class Adam(PlainOptimizer, torch.optim.Adam):
    """torch.optim.Adam, on the step of which torch's compiler has no claim."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def width_rule(group: Group) -> float:
    """That of Adam's steps; W and G, which the decay of equation (1) adds, differ in size."""
    if group["weight_decay"]:
        raise no_rule("adam", "weight_decay=0; adamw decays otherwise")
    return entrywise(group)


def build(
    groups: list[Group], *, lr: Positive, betas: Betas, eps: NonNegative, weight_decay: NonNegative
) -> Adam:
    """See hydra_conf/optimizer/adam.yaml for the settings."""
    return Adam(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
