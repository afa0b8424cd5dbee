"""AdEMAMix: Adam with a second, slow average of the gradient.

Source: Pagliardini et al. (2024), "The AdEMAMix optimizer: better, faster, older",
Algorithm 1. Over the first T steps, ``ramp_steps``, the weight alpha of the slow average
rises linearly and its half-life rises linearly from that of the fast one (section 3).

    m1 <- b1 m1 + (1 - b1) G                                                   (1)
    m2 <- b3(t) m2 + (1 - b3(t)) G                                             (2)
    v  <- b2 v + (1 - b2) G^2                                                  (3)
    N   = m1 / (1 - b1^t) + alpha(t) m2                                        (4)
    W  <- (1 - lr wd) W - lr N / (sqrt(v / (1 - b2^t)) + eps)                  (5)
    alpha(t) = alpha min(t / T, 1)                                             (6)
    1 / ln b3(t) = (1 - t/T) / ln b1 + (t/T) / ln b3, as far as t < T          (7)

(7) is the paper's b3(t) = exp(ln b1 ln b3 / ((1 - t/T) ln b3 + (t/T) ln b1)). lr and wd in
(5): base.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gptopt.config.types import Count, Decay, NonNegative, Positive, Share
from gptopt.optim.common.base import Group, UpdateRule
from gptopt.optim.common.width import entrywise


class AdEMAMix(UpdateRule):
    """Any shape."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The N of equation (4) over the root of the bias-corrected v."""
        if not state:
            for name in ("exp_avg", "exp_avg_slow", "exp_avg_sq"):
                state[name] = torch.zeros_like(grad)
        (b1, b2, b3), t = group["betas"], group["step"]
        m1, m2, v = state["exp_avg"], state["exp_avg_slow"], state["exp_avg_sq"]
        ramp = min(t / group["ramp_steps"], 1.0) if group["ramp_steps"] else 1.0
        m1.lerp_(grad, 1 - b1)  # (1)
        m2.lerp_(grad, 1 - slow_decay(b1, b3, ramp))  # (2)
        v.mul_(b2).addcmul_(grad, grad, value=1 - b2)  # (3)
        mixture = (m1 / (1 - b1**t)).add_(m2, alpha=group["alpha"] * ramp)  # (4), (6)
        return mixture.div_((v / (1 - b2**t)).sqrt_().add_(group["eps"]))  # (5)


def slow_decay(start: float, end: float, ramp: float) -> float:
    """Equation (7): from ``start`` at ``ramp`` 0 to ``end`` at 1, both in (0, 1)."""
    return math.exp(1 / ((1 - ramp) / math.log(start) + ramp / math.log(end)))


width_rule = entrywise


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: tuple[Share, Decay, Share],
    alpha: NonNegative,
    ramp_steps: Count,
    eps: NonNegative,
    cautious: bool,
    weight_decay: NonNegative,
) -> AdEMAMix:
    """See hydra_conf/optimizer/ademamix.yaml for the settings."""
    return AdEMAMix(
        groups,
        lr=lr,
        betas=betas,
        alpha=alpha,
        ramp_steps=ramp_steps,
        eps=eps,
        cautious=cautious,
        weight_decay=weight_decay,
    )
