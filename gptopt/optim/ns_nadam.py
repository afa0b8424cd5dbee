"""NS-NAdam: NAdam's look-ahead, orthogonalised, with Adam's denominator of the result.

Source: the authors of GPT-opt, in their notes on its branch dap. It joins Muon (b2 = 0 and
update_norm = shape) and AdaMuon (b2 > 0 and update_norm = rms).
G is the gradient of an (m, n) weight W, b1 is constant.

    M <- b1 M + (1 - b1) G                                          (1)
    N  = b1 M / (1 - b1^(t+1)) + (1 - b1) G / (1 - b1^t)            (2)
    U  = the polar factor of N                                      (3)
    V <- b2 V + (1 - b2) U^2                                        (4)
    O  = U / (sqrt(V / (1 - b2^t)) + eps), or U where b2 = 0        (5)
    W <- (1 - lr wd) W - lr scale O                                 (6) lr and wd: base.py

    rms     scale = 0.2 / root mean square of O
    shape   scale = sqrt(max(1, m / n))
    none    scale = 1

With ns_steps = 0 there is no (3), V averages G^2, and with scale 1 this is NAdamW.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gptopt.config.types import Betas, Count, NonNegative, PolarMethod, Positive, ProductDtype
from gptopt.optim.common.base import Group, MatrixOptimizer, orthogonal
from gptopt.optim.common.linalg import root_mean_square
from gptopt.optim.common.width import entrywise, gradient, no_rule, spectral

TARGET_RMS = 0.2
NORM_FLOOR = 1e-12


class NSNAdam(MatrixOptimizer):
    """Matrices only."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The scaled O of equation (6)."""
        b1, b2 = group["betas"]
        lookahead = nadam_numerator(grad, state, b1, group["step"], nesterov=True)  # (1), (2)
        plain = group["ns_steps"] == 0
        u = lookahead if plain else orthogonal(lookahead, group)  # (3)
        o = over_root(u, grad if plain else u, state, b2, group)  # (4), (5)
        if group["update_norm"] == "rms":
            return to_rms(o)
        m, n = grad.shape[-2:]
        return max(1, m / n) ** 0.5 * o if group["update_norm"] == "shape" else o  # (6)


def nadam_numerator(
    grad: Tensor, state: dict[str, Tensor], b1: float, step: int, *, nesterov: bool
) -> Tensor:
    """Equations (1) and (2); without ``nesterov`` M / (1 - b1^t)."""
    if "exp_avg" not in state:
        state["exp_avg"] = grad.new_zeros(grad.shape)
    average = state["exp_avg"].lerp_(grad, 1 - b1)
    if not nesterov:
        return average / (1 - b1**step)
    lookahead = grad * ((1 - b1) / (1 - b1**step))
    return lookahead.add_(average, alpha=b1 / (1 - b1 ** (step + 1)))


def over_root(
    u: Tensor, squared: Tensor, state: dict[str, Tensor], b2: float, group: Group
) -> Tensor:
    """Equations (4) and (5), V being the average of the square of ``squared``."""
    if b2 == 0:
        return u
    if "exp_avg_sq" not in state:
        state["exp_avg_sq"] = u.new_zeros(u.shape)
    v = state["exp_avg_sq"].mul_(b2).addcmul_(squared, squared, value=1 - b2)
    return u / (v / (1 - b2 ** group["step"])).sqrt_().add_(group["eps"])


def to_rms(matrix: Tensor) -> Tensor:
    """``matrix`` scaled to entries of root mean square 0.2, as AdamW's are; zeros stay zeros."""
    return matrix * (TARGET_RMS / root_mean_square(matrix).clamp(min=NORM_FLOOR))


def width_rule(group: Group) -> float:
    """Entries are of one size after (5) and with rms; those of (3) do not stay of one norm then."""
    is_even = group["update_norm"] == "rms" or group["betas"][1] > 0
    if group["ns_steps"] == 0:
        return entrywise(group) if is_even else gradient(group)
    if is_even:
        known_with = "update_norm=shape or none and 0 as the second of betas, or with ns_steps=0"
        raise no_rule("ns-nadam", known_with)
    return spectral(group)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    update_norm: Literal["rms", "shape", "none"],
    weight_decay: NonNegative,
) -> NSNAdam:
    """See hydra_conf/optimizer/ns-nadam.yaml for the settings."""
    return NSNAdam(**locals())
