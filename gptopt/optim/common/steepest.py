"""Steepest descent for a norm of all parameters together, with Momo's truncation if asked for.

Source: Crawshaw et al. (2025), "An exploration of non-Euclidean gradient descent: Muon and its
many variants", arXiv 2510.09827. Its named methods have a file each, and point here.
G is the gradient of a parameter W, M its average, a = lr unless truncated. Sums run over all
parameters, or over those of role matrix, or over the rest.

    M <- mu M + (1 - mu) G,  from M = G;   V <- b2 V + (1 - b2) G^2,  from V = G^2      (1)

    norm max: the largest of the norms of the parameters
        matrix   U = s polar(M)                                                        (2)
        rest     U = sign(M), or M / (sqrt(V) + eps)                                   (3)
        W <- (1 - lr wd) W - a U;   D = sum <M, U>                                     (4)
    norm hybrid: squared, it is that of the largest matrix plus those of the rest
        matrix   U = S s polar(M),  S = sum over matrices of s <M, polar(M)>           (5)
        rest     U = M / (sqrt(V) + eps)                                               (6)
        W <- (1 - lr wd) W - a U;   D = S^2 + sum over the rest of <M, U>              (7)

    Momo, with F* = truncate_loss, a lower bound of the loss f:
        F <- mu F + (1 - mu) (f - sum <W, G>)                                          (8)
        a  = min(lr, max(0, (F - F* + sum <W, M>) / D))                                (9)

D is the inner product of M with the whole direction in either norm. s is ``muon_lr_ratio``,
in hybrid its root. Each polar factor is computed once. The original code lacks the max of (9),
and climbs once the model of the loss falls below F*.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from gptopt.optim.common.base import Group, gradients, orthogonal, require_matrices
from gptopt.optim.common.polyak import LossOptimizer, inner_product


class SteepestDescent(LossOptimizer):
    """Matrices by their spectral norm, everything else by that of sign or Adam's steps.

    Args:
        groups: Parameter groups with their ``role``.
        norm: max or hybrid; hybrid goes with ``rest`` adam.
        rest: Norm of what is not a matrix: sign, or adam.
        settings: ``lr``, ``momentum``, ``muon_lr_ratio``, ``polar``, ``ns_steps``, ``ns_dtype``,
            ``weight_decay``; for adam ``beta2`` and ``eps``; for Momo ``truncate_loss``.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        norm: Literal["max", "hybrid"],
        rest: Literal["sign", "adam"],
        **settings: Any,
    ) -> None:
        assert (norm, rest) != ("hybrid", "sign")
        self.wants_loss = "truncate_loss" in settings
        averages = ["loss_average"] if self.wants_loss else []
        super().__init__(groups, averages=averages, **settings)
        self.norm, self.rest = norm, rest
        for group in self.param_groups:
            if group["role"] == "matrix":
                require_matrices(self, group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        params: list[Tensor] = []
        averages: list[Tensor] = []
        moves: list[tuple[Group, list[Tensor], Tensor]] = []
        nuclear: list[Tensor] = []
        other: list[Tensor] = []
        for group in self.param_groups:
            group["step"] += 1
            for batch in self._batches(group):
                with self._state(batch) as state:
                    average = self._average(gradients(batch), state, group)
                    u = self.direction(average, state, group)  # (2), (3), (6)
                dual = inner_product([average], [u])
                (nuclear if group["role"] == "matrix" else other).append(dual)
                params, averages = params + batch, averages + list(average.unbind())
                moves.append((group, batch, u))
        if not moves:
            return
        zero = torch.zeros((), dtype=torch.float64, device=params[0].device)
        matrices, rest = sum(nuclear, zero), sum(other, zero)
        length = matrices if self.norm == "hybrid" else torch.ones_like(zero)
        dual = matrices * length + rest  # (4), (7)
        reach = self._reach(params, averages) if self.wants_loss else None
        for group, batch, u in moves:
            a = group["lr"] if reach is None else self.step_size(reach, dual, group["lr"])  # (9)
            if group["role"] == "matrix":
                a = a * length  # (5)
            torch._foreach_mul_(batch, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_sub_(batch, u.mul_(a).unbind())

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """U for the averages ``grad``, in hybrid without the S of (5)."""
        if group["role"] == "matrix":
            ratio = group["muon_lr_ratio"]
            scale = ratio**0.5 if self.norm == "hybrid" else ratio
            return orthogonal(grad, group).mul_(scale)  # (2), (5)
        if self.rest == "sign":
            return grad.sign()  # (3)
        return grad / state["exp_avg_sq"].sqrt().add_(group["eps"])  # (3), (6)

    def _average(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """M; the state holds V where it is needed."""
        if not state:
            state["exp_avg"] = grad.clone()
            if self.rest == "adam" and group["role"] != "matrix":
                state["exp_avg_sq"] = grad.square()
        state["exp_avg"].lerp_(grad, 1 - group["momentum"])  # (1)
        if "exp_avg_sq" in state:
            b2 = group["beta2"]
            state["exp_avg_sq"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
        return state["exp_avg"]

    def _reach(self, params: list[Tensor], averages: list[Tensor]) -> Tensor:
        """The numerator of (9)."""
        group = self.param_groups[0]
        model = self.loss - inner_product(params, [p.grad for p in params])  # type: ignore[misc]
        f = self.average("loss_average", model, group["momentum"], first=model)  # (8)
        return f - group["truncate_loss"] + inner_product(params, averages)
