"""How long steps of optimizers take on the matrices of a model, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptopt.optim.common.routing import build_optimizer


@dataclass(frozen=True)
class Times:
    """Seconds of one optimizer, medians over the rounds.

    Attributes:
        step: Of one step, what hooks do in the forward pass included.
        inputs: Of these hooks alone.
    """

    step: float
    inputs: float


class _Watched(nn.Linear):
    """A layer whose forward pass is what hooks do with its input; the product is the model's."""

    def forward(self, input: Tensor) -> Tensor:
        return input


def time_steps(
    optimizers: Mapping[str, Mapping[str, Any]],
    model: nn.Module,
    roles: Mapping[str, str],
    *,
    rows: int,
    rounds: int,
) -> dict[str, Times]:
    """How long a step of each optimizer takes, in rounds in which each steps once.

    The round before them makes the state and is not counted. On a CPU it is the time of this
    process on all of its threads, so other processes count for less.

    Args:
        optimizers: Name -> the node optimizer_params.
        model: On the meta device; its matrices are made here, with normal gradients.
        roles: Parameter name -> role.
        rows: Vectors that enter each layer in a step, normal as well, in float32.
        rounds: At least 1.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [name for name, role in roles.items() if role == "matrix"]
    shapes = [tuple(model.get_parameter(name).shape) for name in names]
    inputs = {width: torch.randn(rows, width, device=device) for _, width in shapes}
    parts = {name: _parts(params, shapes, inputs, device) for name, params in optimizers.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, (look, step) in parts.items():
            began = _clock(device)
            look()
            seen = _clock(device)
            step()
            seconds[name].append((_clock(device) - began, seen - began))
    return {
        name: Times(*(statistics.median(part) for part in zip(*times[1:], strict=True)))
        for name, times in seconds.items()
    }


def _parts(
    params: Mapping[str, Any],
    shapes: list[tuple[int, ...]],
    inputs: Mapping[int, Tensor],
    device: torch.device,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """What an optimizer does in the forward passes of a step, and the step."""
    numbers = torch.Generator().manual_seed(0)
    layers = nn.ModuleList()
    for rows, columns in shapes:
        layer = _Watched(columns, rows, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.randn(rows, columns, generator=numbers).to(device) / 50)
        layer.weight.grad = torch.randn(rows, columns, generator=numbers).to(device)
        layers.append(layer)
    roles = {name: "matrix" for name, _ in layers.named_parameters()}
    optimizer = build_optimizer(params, layers.named_parameters(), roles)
    optimizer.attach(layers)
    loss = torch.tensor(10.0, device=device)
    gradients: dict[Tensor, Tensor] = {
        weight: torch.randn_like(weight) for weight in layers.parameters()
    }

    def look() -> None:
        for layer, (_, width) in zip(layers, shapes, strict=True):
            layer(inputs[width])

    def step() -> None:
        optimizer.observe(loss)
        optimizer.observe_earlier(gradients)
        optimizer.step()
        optimizer.forget()

    return look, step


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
