"""PSGD-Kron: a Kronecker preconditioner learned so that preconditioned gradients are white.

Source: Li (2018), "Preconditioned stochastic gradient descent", and Pooladzandi and Li (2024),
"Curvature-informed SGD via general purpose Lie-group preconditioners"; averaging, schedule
and bound of the step follow kron_torch. G is the gradient of an (m, n) weight W, Q_L and
Q_R are upper triangular, identities at the start, V is standard normal of shape (m, n).

    M   <- mu M + (1 - mu) G,   N = M / (1 - mu^t)                                (1)
    A    = Q_L N Q_R^T,   B = Q_L^-T V Q_R^-1                                     (2)
    Q_L <- Q_L - h triu(A A^T - B B^T) Q_L / |A A^T + B B^T|                      (3)
    Q_R <- Q_R - h triu(A^T A - B^T B) Q_R / |A^T A + B^T B|                      (4)
    U    = Q_L^T Q_L N Q_R^T Q_R                                                  (5)
    W   <- (1 - lr wd) W - lr U min(1, clip / RMS(U))                             (6) base.py

h is ``precondition_lr``, |.| an estimate of the spectral norm. (3) and (4) are at rest where
A A^T and B B^T have equal means: where U, for G in the place of N, is as white as V.
kron_torch does (2) to (4) with a
probability that falls with t; here they are done as often without chance, see
``updates_until``, and V comes from a generator seeded by ``seed`` and t: t is all that a
resumed run has to know. Before (2) the largest entries of Q_L and Q_R are made equal, which
leaves A, B and U as they are. Matrices of one shape see the same V.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gptopt.config.types import (
    Count,
    Decay,
    NonNegative,
    Positive,
    PositiveFraction,
    PositiveInt,
    Seed,
)
from gptopt.optim.common.base import Group, MatrixOptimizer
from gptopt.optim.common.linalg import spectral_norm

NORM_STEPS = 2
"""Power iterations for the norms of (3) and (4), which need no digits."""


class Kron(MatrixOptimizer):
    """Matrices only. State of an (m, n) matrix: m n + m^2 + n^2 numbers."""

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """What lr multiplies in equation (6)."""
        t, (m, n) = group["step"], grad.shape[-2:]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
            for name, size in (("q_left", m), ("q_right", n)):
                eye = torch.eye(size, dtype=grad.dtype, device=grad.device)
                state[name] = eye.repeat(len(grad), 1, 1)
        state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        average = state["momentum_buffer"] / (1 - group["momentum"] ** t)  # (1)
        q_left, q_right = state["q_left"], state["q_right"]
        if _is_due(t, group):
            home = "cpu" if grad.is_meta else grad.device  # costs are counted on meta
            numbers = torch.Generator(home).manual_seed(group["seed"] + t)
            probe = torch.randn(m, n, generator=numbers, dtype=torch.float32, device=grad.device)
            _learn(q_left, q_right, average, probe.to(grad), group["precondition_lr"])
        update = q_left.mT @ (q_left @ average @ q_right.mT) @ q_right  # (5)
        rms = update.square().mean((-2, -1), keepdim=True).sqrt()
        return update.mul_((group["clip"] / rms).clamp_(max=1))  # (6)


def _learn(q_left: Tensor, q_right: Tensor, grad: Tensor, probe: Tensor, rate: float) -> None:
    """Equations (2) to (4), in place."""
    ratio = (q_right.abs().amax((-2, -1)) / q_left.abs().amax((-2, -1))).sqrt_()[:, None, None]
    q_left.mul_(ratio)
    q_right.div_(ratio)
    a = q_left @ grad @ q_right.mT
    b = torch.linalg.solve_triangular(q_right, probe.expand_as(grad), upper=True, left=False)
    b = torch.linalg.solve_triangular(q_left.mT, b, upper=False)  # (2)
    for q, aa, bb in ((q_left, a @ a.mT, b @ b.mT), (q_right, a.mT @ a, b.mT @ b)):
        size = spectral_norm(aa + bb, steps=NORM_STEPS)
        q.sub_(((aa - bb) / size).triu_() @ q, alpha=rate)  # (3), (4)


def _is_due(step: int, group: Group) -> bool:
    """Whether a learning step belongs between ``step`` - 1 and ``step``."""
    shape = (group["flat_steps"], group["fall_steps"], group["least_share"])
    return math.floor(updates_until(step, *shape)) > math.floor(updates_until(step - 1, *shape))


def updates_until(step: int, flat_steps: int, fall_steps: int, least_share: float) -> float:
    """Learning steps of the preconditioner that belong into the first ``step`` steps.

    In each step one for ``flat_steps``; then a share exp(-(step - flat_steps) / fall_steps)
    of one, until that is down to ``least_share``: the integral of all that.
    """
    if step <= flat_steps:
        return float(step)
    fall = min(step - flat_steps, -fall_steps * math.log(least_share))
    rest = step - flat_steps - fall
    return flat_steps + fall_steps * (1 - math.exp(-fall / fall_steps)) + rest * least_share


def build(
    groups: list[Group],
    *,
    lr: Positive,
    momentum: Decay,
    precondition_lr: Positive,
    flat_steps: Count,
    fall_steps: PositiveInt,
    least_share: PositiveFraction,
    clip: Positive,
    seed: Seed,
    weight_decay: NonNegative,
) -> Kron:
    """See hydra_conf/optimizer/kron.yaml for the settings."""
    return Kron(
        groups,
        lr=lr,
        momentum=momentum,
        precondition_lr=precondition_lr,
        flat_steps=flat_steps,
        fall_steps=fall_steps,
        least_share=least_share,
        clip=clip,
        seed=seed,
        weight_decay=weight_decay,
    )
