"""DAP-NS-NAdam: NAdam on gradients preconditioned by the inputs of their layers.

Source: N. Ghosh and N. Amsel in GPT-opt, branch dap. DAP divides the gradient of a linear
layer by the second moment of the layer's inputs, the right factor of K-FAC (Martens and
Grosse, 2015). Where that code and its mathematics differ we follow the mathematics: damping is
relative to the mean eigenvalue and part of the matrix whose norm bounds the iteration, C is
formed in float32, and a refresh keeps P, not a preconditioned gradient.
G is the gradient of an (m, n) weight W; C = X^T X / N of its N inputs in this step.

    M <- b1 M + (1 - b1) G                                          (1)
    N  = b1 M / (1 - b1^(t+1)) + (1 - b1) G / (1 - b1^t)            (2) nesterov; or M / (1 - b1^t)
    C <- C + damping tr(C) / n I                                    (3)
    U  = N P(C)                                                     (4)
    U <- the polar factor of U, times sqrt(max(1, m / n))           (5) orthogonalize
    V <- b2 V + (1 - b2) U^2                                        (6)
    O  = U / (sqrt(V / (1 - b2^t)) + eps), or U where b2 = 0        (7)
    O <- O / |O|_2, or O 0.2 / RMS(O)                               (8) update_opnorm, update_norm
    W <- (1 - lr wd) W - lr O                                       (9) lr and wd: base.py

    b1 = 0    B <- momentum B + G;  N = G + momentum B, or B        in place of (1) and (2)

P(C) is the pseudo-inverse, by pinv.py. ``accelerated`` says how: false for the plain iteration,
true for the accelerated one from its general start, a number for its psd start after as much
further damping in (3). ``scalar`` divides by |C|_2 instead. ``disable_preconditioning`` leaves
out (3), (4) and (5); V then averages G^2, which is NAdamW.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch import Tensor

from gptopt.config.types import (
    Count,
    Decay,
    NonNegative,
    PolarMethod,
    Positive,
    PositiveInt,
    ProductDtype,
    Share,
)
from gptopt.optim.common.base import Group, gradients, orthogonal
from gptopt.optim.common.inputs import InputMoments, InputOptimizer
from gptopt.optim.common.linalg import spectral_norm
from gptopt.optim.common.pinv import POWER_STEPS, accelerated_pinv, pinv
from gptopt.optim.common.width import entrywise, gradient, no_rule, spectral
from gptopt.optim.ns_nadam import NORM_FLOOR, nadam_numerator, over_root, to_rms

log = logging.getLogger(__name__)


class DAPNSNAdam(InputOptimizer):
    """Matrices only."""

    def __init__(self, groups: list[Group], **settings: Any) -> None:
        share = settings["xtx_subsample"]
        inputs = InputMoments(share=share, whole_batches=settings["mb_subsampling"])
        super().__init__(groups, inputs=inputs, **settings)

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """The O of equation (9)."""
        grad = gradients(params)
        if group["dap_beta1"] > 0:
            b1, nesterov = group["dap_beta1"], group["nesterov"]
            u = nadam_numerator(grad, state, b1, group["step"], nesterov=nesterov)  # (1), (2)
        else:
            u = _sum_of_gradients(grad, state, group)
        squared = grad
        if not group["disable_preconditioning"]:
            began = time.perf_counter()
            u = squared = u @ self.preconditioner(params, state, group)  # (3), (4)
            if group["debug_timing"]:
                seconds, shape = time.perf_counter() - began, tuple(u.shape)
                log.info("step %d: %.4f s for P(C) of %s", group["step"], seconds, shape)
            if group["orthogonalize"]:
                m, n = u.shape[-2:]
                u = squared = max(1, m / n) ** 0.5 * orthogonal(u, group)  # (5)
        o = over_root(u, squared, state, group["dap_beta2"], group)  # (6), (7)
        if group["update_opnorm"]:
            return o / spectral_norm(o, steps=POWER_STEPS).clamp(min=NORM_FLOOR)  # (8)
        return to_rms(o) if group["update_norm"] else o

    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """How P fits C; nothing where there is no P."""
        return {} if self.param_groups[0]["disable_preconditioning"] else super().diagnostics()

    def damping(self, group: Group) -> float:
        """That of (3)."""
        how = group["accelerated"]
        return group["damping"] + (0 if isinstance(how, bool) else how)

    def inverse(self, moment: Tensor, group: Group) -> Tensor:
        """P of (4)."""
        how, rcond, steps = group["accelerated"], group["rcond"], group["ns_pinv_steps"]
        if group["scalar"]:
            norm = spectral_norm(moment, steps=POWER_STEPS)
            eye = torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)
            return torch.where(norm > 0, eye / norm, torch.zeros_like(moment))
        if how is False:
            return pinv(moment, rcond=rcond, steps=steps)
        return accelerated_pinv(
            moment, rcond=rcond, steps=steps, start="general" if how is True else "psd"
        )


def _sum_of_gradients(grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
    if group["momentum"] == 0:
        return grad
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(grad)
    buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
    return grad + group["momentum"] * buffer if group["nesterov"] else buffer


def width_rule(group: Group) -> float:
    """(8) and (5) alone fix the spectral norm. Of N P(C) neither norm nor rank is known."""
    is_even = group["update_norm"] or group["dap_beta2"] > 0
    if group["update_opnorm"]:
        return spectral(group)
    if group["disable_preconditioning"]:
        return entrywise(group) if is_even else gradient(group)
    if is_even or not group["orthogonalize"]:
        known_with = (
            "update_opnorm=true, with orthogonalize=true, dap_beta2=0 and update_norm=false, or"
            " with disable_preconditioning=true"
        )
        raise no_rule(group["rule"], known_with)
    return spectral(group)


def build(
    groups: list[Group],
    *,
    lr: Positive,
    dap_beta1: Decay,
    dap_beta2: Decay,
    eps: Positive,
    momentum: Decay,
    nesterov: bool,
    disable_preconditioning: bool,
    scalar: bool,
    ns_pinv_steps: PositiveInt,
    accelerated: bool | NonNegative,
    rcond: Positive,
    damping: NonNegative,
    ema_beta: Decay,
    refresh_every: PositiveInt,
    xtx_subsample: Share | None,
    mb_subsampling: bool,
    orthogonalize: bool,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    update_norm: bool,
    update_opnorm: bool,
    debug_timing: bool,
    weight_decay: NonNegative,
) -> DAPNSNAdam:
    """See hydra_conf/optimizer/dap-ns-nadam.yaml for the settings."""
    return DAPNSNAdam(**locals())
