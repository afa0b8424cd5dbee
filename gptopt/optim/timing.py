"""How long steps of optimizers take on the matrices of a model, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from gptopt.optim.routing import build_optimizer


def time_steps(
    optimizers: Mapping[str, Mapping[str, Any]],
    model: nn.Module,
    roles: Mapping[str, str],
    *,
    rounds: int,
) -> dict[str, float]:
    """Seconds of a step of each optimizer: the median over rounds in which each steps once.

    The round before them makes the state and is not counted. On a CPU it is the time of this
    process on all of its threads, so other processes count for less.

    Args:
        optimizers: Name -> the node optimizer_params.
        model: On the meta device; its matrices are made here, with normal gradients.
        roles: Parameter name -> role.
        rounds: At least 1.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [name for name, role in roles.items() if role == "matrix"]
    shapes = [tuple(model.get_parameter(name).shape) for name in names]
    steps = {name: _stepper(params, shapes, device) for name, params in optimizers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = _clock(device)
            step()
            if number:
                seconds[name].append(_clock(device) - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _stepper(
    params: Mapping[str, Any], shapes: list[tuple[int, ...]], device: torch.device
) -> Callable[[], None]:
    numbers = torch.Generator().manual_seed(0)
    layers = nn.ModuleList()
    for rows, columns in shapes:
        layer = nn.Linear(columns, rows, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.randn(rows, columns, generator=numbers).to(device) / 50)
        layer.weight.grad = torch.randn(rows, columns, generator=numbers).to(device)
        layers.append(layer)
    roles = {name: "matrix" for name, _ in layers.named_parameters()}
    optimizer = build_optimizer(params, layers.named_parameters(), roles)
    optimizer.attach(layers)
    loss = torch.tensor(10.0, device=device)
    gradients: dict[torch.Tensor, torch.Tensor] = {
        weight: torch.randn_like(weight) for weight in layers.parameters()
    }

    def step() -> None:
        optimizer.observe(loss)
        optimizer.observe_earlier(gradients)
        optimizer.step()

    return step


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
