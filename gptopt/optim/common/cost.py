"""What an optimizer costs on a model, counted on tensors that hold no numbers.

torch's meta device works out shapes and types alone, so the state of an optimizer of GPT-2 is
counted in a tenth of a second, without its gigabyte and without its products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from gptopt.optim.common.routing import RoutedOptimizer, build_optimizer

STEPS = 10
"""Steps that are averaged: what is done every tenth time enters with a tenth."""
INTERVALS = ("refresh_every", "precondition_interval")
"""Settings that may ask for more: as many steps as from one time to the next."""


@dataclass(frozen=True)
class Cost:
    """Of one optimizer on one model.

    Attributes:
        state_bytes: Per parameter, beyond the weights and gradients.
        flops: Of the matrix products and triangular solves of one step, mean over ``STEPS``
            or an interval after the first; products that decompositions (svd, qr, eigh) do
            inside are not in it, nor are passes through the model.
    """

    state_bytes: float
    flops: float


def cost(params: Mapping[str, Any], model: nn.Module, roles: Mapping[str, str]) -> Cost | None:
    """The cost of the optimizer that ``params`` describes.

    Args:
        params: The node optimizer_params.
        model: On the meta device.
        roles: Parameter name -> role.

    Returns:
        None where a step depends on numbers and cannot be followed without them.
    """
    steps = max(STEPS, *(params.get(key, 1) for key in INTERVALS))
    with torch.device("meta"), _NaNs():
        optimizer = build_optimizer(params, model.named_parameters(), roles)
        optimizer.attach(model)
        for group in optimizer.param_groups:
            if "fused" in group:
                group["fused"] = False  # there is no such kernel on meta
        for param in model.parameters():
            param.grad = torch.empty_like(param)
        gradients: dict[Tensor, Tensor] = {
            param: torch.empty_like(param) for param in model.parameters()
        }
        counter = FlopCounterMode(display=False, custom_mapping=SOLVES)
        try:
            _step(optimizer, gradients)
            with counter:
                for _ in range(steps):
                    _step(optimizer, gradients)
        except (RuntimeError, NotImplementedError, ValueError):  # ValueError: int(NaN)
            return None
    size = sum(param.numel() for param in model.parameters())
    return Cost(state_size(optimizer) / size, counter.get_total_flops() / steps)


def _solve_flops(
    triangle: torch.Size, sides: torch.Size, *args: Any, out_shape: torch.Size, **kwargs: Any
) -> int:
    """Half of a product: each of the ``sides`` meets one half of an (n, n) matrix."""
    return math.prod(sides) * triangle[-1]


SOLVES: dict[Any, Callable[..., int]] = {torch.ops.aten.linalg_solve_triangular: _solve_flops}


class _NaNs(TorchFunctionMode):
    """A rule that reads a number gets NaN; all comparisons with it are false, so loops end."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.item, Tensor.tolist, Tensor.__float__) and args[0].is_meta:
            return _nans(args[0].shape) if func == Tensor.tolist else math.nan
        return func(*args, **(kwargs or {}))


def _nans(shape: torch.Size) -> Any:
    """What ``tolist`` gives for this shape: lists in lists, or one number."""
    return [_nans(shape[1:]) for _ in range(shape[0])] if shape else math.nan


def _step(optimizer: RoutedOptimizer, gradients: Mapping[Tensor, Tensor]) -> None:
    optimizer.observe(torch.empty(()))
    optimizer.observe_earlier(gradients)
    optimizer.step()
    optimizer.forget()


def state_size(optimizer: RoutedOptimizer) -> int:
    """Bytes of all tensors of an optimizer's state, one shared by several parameters once."""
    tensors = {
        id(tensor): tensor
        for state in optimizer.state_dict()["state"].values()
        for tensor in state.values()
        if isinstance(tensor, Tensor)
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
