"""What an optimizer costs on a model, counted on tensors that hold no numbers.

torch's meta device works out shapes and types alone, so the state of an optimizer of GPT-2 is
counted in a tenth of a second, without its gigabyte and without its products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gptopt.optim.routing import RoutedOptimizer, build_optimizer

STEPS = 10
"""Steps that are averaged: what is done every tenth time enters with a tenth."""


@dataclass(frozen=True)
class Cost:
    """Of one optimizer on one model.

    Attributes:
        state_bytes: Per parameter, beyond the weights and gradients.
        flops: Of the matrix products of one step, mean over ``STEPS`` after the first; products
            that decompositions (svd, qr, eigh) do inside are not in it, nor are passes through
            the model.
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
    with torch.device("meta"):
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
        counter = FlopCounterMode(display=False)
        try:
            _step(optimizer, gradients)
            with counter:
                for _ in range(STEPS):
                    _step(optimizer, gradients)
        except (RuntimeError, NotImplementedError):
            return None
    size = sum(param.numel() for param in model.parameters())
    return Cost(state_size(optimizer) / size, counter.get_total_flops() / STEPS)


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
