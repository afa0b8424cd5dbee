"""Second moments of what enters linear layers: C = X^T X / N over the N rows of one step.

Forward hooks add up X^T X and N. They count in training mode only, once where activations are
recomputed, and over all micro-batches; they read weights by identity, so tied ones stay tied
and their layers' rows add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gptopt.optim.common.base import Group, MatrixOptimizer
from gptopt.optim.common.linalg import spectral_norm
from gptopt.optim.common.pinv import POWER_STEPS, damped


class InputMoments:
    """The sums of one step, by weight; nothing is kept from one step to the next.

    Args:
        share: Part of the rows that is counted, spread evenly over them; None for all.
        whole_batches: Count one forward pass out of 1 / share instead, with all its rows; the
            first of a step always.

    Attributes:
        active: Whether the hooks count; while they do not, they cost nothing.
    """

    def __init__(self, *, share: float | None, whole_batches: bool) -> None:
        self.share = None if whole_batches else share
        self.stride = round(1 / share) if share and whole_batches else 1
        self.active = True
        self._sums: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._passes: dict[nn.Module, int] = {}

    def attach(self, model: nn.Module, weights: Iterable[Tensor]) -> None:
        """Watches the layers of ``model`` that multiply by ``weights``, each of (m, n).

        Raises:
            ValueError: One of them belongs to no nn.Linear of ``model``.
        """
        weights = list(weights)
        for module in model.modules():
            if isinstance(module, nn.Linear) and any(module.weight is w for w in weights):
                self._watch(module)
        for weight in weights:
            if weight not in self._sums:
                names = {id(p): name for name, p in model.named_parameters()}
                raise ValueError(
                    f"the inputs of {names.get(id(weight), tuple(weight.shape))} are needed, and it"
                    " is the weight of no torch.nn.Linear in the model."
                )

    def take(self, weights: list[Tensor]) -> Tensor:
        """C for weights of one shape (m, n), stacked: (B, n, n), at least float32.

        Raises:
            RuntimeError: Nothing watches the model.
        """
        if any(weight not in self._sums for weight in weights):
            raise RuntimeError("call attach(model) first: this optimizer needs layers' inputs.")
        sums = [self._sums[weight] for weight in weights]
        return torch.stack([total / rows.clamp(min=1) for total, rows in sums])

    @property
    def totals(self) -> list[Tensor]:
        """What has to be summed over processes before ``take``."""
        return [part for pair in self._sums.values() for part in pair] if self.active else []

    def forget(self) -> None:
        """Starts a new step."""
        for part in self.totals:
            part.zero_()
        self._passes.clear()

    def _watch(self, module: nn.Linear) -> None:
        weight = module.weight
        # bfloat16 sums of products are not positive semi-definite any more
        dtype = torch.promote_types(weight.dtype, torch.float32)
        width = module.in_features
        total = torch.zeros(width, width, dtype=dtype, device=weight.device)
        rows = torch.zeros((), dtype=dtype, device=weight.device)
        self._sums.setdefault(weight, (total, rows))
        module.register_forward_pre_hook(partial(self._count, *self._sums[weight]))

    def _count(self, total: Tensor, rows: Tensor, module: nn.Module, args: Any) -> None:
        if not (self.active and module.training) or _recomputes():
            return
        if self.stride > 1:
            number = self._passes.get(module, 0)
            self._passes[module] = number + 1
            if number % self.stride:
                return
        with torch.no_grad(), torch.autocast(total.device.type, enabled=False):
            x = args[0].detach().reshape(-1, total.shape[0])
            if self.share is not None:
                kept = max(1, int(self.share * len(x)))
                x = x[torch.arange(kept, device=x.device) * len(x) // kept]
            x = x.to(total.dtype)
            total.addmm_(x.mT, x)
            rows += len(x)


def _recomputes() -> bool:
    """Whether this forward pass runs inside a backward pass (activation checkpointing)."""
    if torch.compiler.is_compiling():  # compiled code recomputes without its hooks
        return False
    return torch._C._current_graph_task_id() != -1


class InputOptimizer(MatrixOptimizer):
    """A rule for matrices that multiplies from the right by P(C), C of the layer's inputs.

    Args:
        groups: Parameter groups.
        inputs: What counts; the rule attaches it.
        settings: ``refresh_every`` (steps between two evaluations of P) and ``ema_beta`` (decay
            of an average of C over the steps that P is evaluated in; 0 for none), and what
            ``damping``, ``inverse`` and ``batch_direction`` need.

    P(C) is kept, and saved, only where the next step needs it. A matrix that gets its first
    gradient between two evaluations has one of its own then.
    """

    def __init__(self, groups: Iterable[Group], *, inputs: InputMoments, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.inputs = inputs

    def attach(self, model: nn.Module) -> None:
        """Watches the layers that this rule's matrices belong to."""
        self.inputs.attach(model, [w for group in self.param_groups for w in group["params"]])

    @property
    def totals(self) -> list[Tensor]:
        """X^T X and N of each layer, in the steps that evaluate P."""
        return self.inputs.totals

    def forget(self) -> None:
        """Starts a new step; its inputs count if P is, or may be, evaluated in it."""
        self.inputs.forget()
        self.inputs.active = any(
            group["step"] % group["refresh_every"] == 0
            or any("inverse" not in self.state.get(weight, ()) for weight in group["params"])
            for group in self.param_groups
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.forget()  # what the next step needs depends on what was loaded

    def watch_step(self) -> None:
        """Counts the inputs, also where a kept P is used: ``diagnostics`` tells how it fits."""
        self.inputs.active = True

    def damping(self, group: Group) -> float:
        """What is added to the eigenvalues of C, relative to their mean."""
        raise NotImplementedError

    def inverse(self, moment: Tensor, group: Group) -> Tensor:
        """P of a C that is damped already: (B, n, n) -> (B, n, n)."""
        raise NotImplementedError

    def preconditioner(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """P(C) for ``params``, new or as kept."""
        if "inverse" in state and (group["step"] - 1) % group["refresh_every"] != 0:
            return state["inverse"]
        moment = self.inputs.take(params)
        if group["ema_beta"] > 0:
            if "moment" in state:
                moment = torch.lerp(moment, state["moment"], group["ema_beta"])
            state["moment"] = moment
        inverse = self.inverse(damped(moment, self.damping(group)), group)
        if group["refresh_every"] > 1:
            state["inverse"] = inverse
        return inverse

    @torch.no_grad()
    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """How P fits C, with its damping, by weight.

        ``pinv_residual`` is |C P C - C| / |C|, Frobenius norms, of the inputs of this step or
        their average; ``input_condition`` is |C|_2 |P|_2, the condition of C above the cut.
        """
        found: dict[str, dict[str, Tensor | float]] = {}
        for group in self.param_groups:
            kept = {"moment"} if group["ema_beta"] > 0 else set()
            kept |= {"inverse"} if group["refresh_every"] > 1 else set()
            names = dict(zip(group["params"], group["param_names"], strict=True))
            for params in self._batches(group):
                if not kept <= self.state.get(params[0], {}).keys():
                    continue  # float16 has left out every step so far
                state = {n: torch.stack([self.state[param][n] for param in params]) for n in kept}
                moment = state["moment"] if "moment" in kept else self.inputs.take(params)
                c = damped(moment, self.damping(group))
                p = state["inverse"] if "inverse" in kept else self.inverse(c, group)
                residual = torch.linalg.matrix_norm(c @ p @ c - c) / torch.linalg.matrix_norm(c)
                c_norm, p_norm = (spectral_norm(x, steps=POWER_STEPS).flatten() for x in (c, p))
                for place, param in enumerate(params):
                    found[names[param]] = {
                        "pinv_residual": residual[place],
                        "input_condition": c_norm[place] * p_norm[place],
                    }
        return found
