"""Holds an optimizer to an oracle in numpy: 20 and more steps, every kind of shape.

An oracle is a function (W, gradients) -> W of one parameter, in float64. The gradients do not
depend on the weights, so an error is not corrected by the steps that follow it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from gptopt.optim import RoutedOptimizer, build_optimizer

Array = np.ndarray
Oracle = Callable[[Array, list[Array]], Array]
Shapes = Mapping[str, tuple[int, ...]]

MATRICES: Shapes = {"square": (8, 8), "twin": (8, 8), "wide": (5, 14), "tall": (14, 5)}
ROWS: Shapes = {"row": (1, 9), "column": (9, 1)}
SHAPES: Shapes = {**MATRICES, **ROWS, "vector": (7,)}
STEPS = 24


def normal(seed: int, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Normal numbers that float32 and float64 both hold exactly."""
    numbers = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()}


def gradients(step: int, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Normal gradients whose size changes by a factor of nine within seven steps."""
    size = 3.0 ** (step % 7 / 3 - 1)
    return {name: size * grad for name, grad in normal(step + 1, shapes).items()}


def start(
    params: Mapping[str, Any], dtype: torch.dtype, shapes: Shapes
) -> tuple[dict[str, torch.nn.Parameter], RoutedOptimizer]:
    """Parameters of these shapes, all of role matrix and all decayed, and their optimizer."""
    weights = {n: torch.nn.Parameter(w.to(dtype)) for n, w in normal(0, shapes).items()}
    params = {**params, "no_decay": []}
    return weights, build_optimizer(params, weights.items(), dict.fromkeys(weights, "matrix"))


def train(
    params: Mapping[str, Any], dtype: torch.dtype, shapes: Shapes, steps: int = STEPS
) -> dict[str, torch.Tensor]:
    """The weights after ``steps``."""
    weights, optimizer = start(params, dtype, shapes)
    take_steps(weights, optimizer, range(steps))
    return {name: weight.detach() for name, weight in weights.items()}


def take_steps(
    weights: dict[str, torch.nn.Parameter], optimizer: RoutedOptimizer, steps: range
) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    for step in steps:
        for name, grad in gradients(step, shapes).items():
            weights[name].grad = grad.to(weights[name].dtype)
        optimizer.step()


def assert_follows(
    params: Mapping[str, Any],
    oracle: Oracle,
    *,
    shapes: Shapes = SHAPES,
    float64: float = 1e-12,
    float32: float = 2e-5,
) -> None:
    """Compares all weights with the oracle's, relative to the way W has gone since its start.

    Args:
        float64: Largest error where both compute in float64. 1e-12 is a different order of
            the arithmetic; more needs a reason.
        float32: Largest error where the optimizer computes in float32. 2e-5 is some hundred
            roundings of 6e-8.
    """
    begin = normal(0, shapes)
    grads = [gradients(step, shapes) for step in range(STEPS)]
    for dtype, limit in ((torch.float64, float64), (torch.float32, float32)):
        ours = train(params, dtype, shapes)
        for name in shapes:
            w = begin[name].double().numpy()
            expected = oracle(w.copy(), [grad[name].double().numpy() for grad in grads])
            way = np.linalg.norm(expected - w)
            error = np.linalg.norm(ours[name].double().numpy() - expected) / way
            assert error < limit, f"{name} in {dtype}: error {error:.1e}"


def assert_resumes(params: Mapping[str, Any], shapes: Shapes) -> None:
    """Compares to the bit what was saved and resumed after each of many steps.

    For rules of which some steps do more than others, beyond the reach of the contract's few.
    """
    undisturbed = train(params, torch.float32, shapes)
    for saved_after in range(1, STEPS, 4):
        weights, optimizer = start(params, torch.float32, shapes)
        take_steps(weights, optimizer, range(saved_after))
        file = io.BytesIO()
        torch.save([weights, optimizer.state_dict()], file)
        file.seek(0)
        saved, state = torch.load(file, weights_only=True)
        weights, optimizer = start(params, torch.float32, shapes)
        for name, weight in weights.items():
            weight.data.copy_(saved[name])
        optimizer.load_state_dict(state)
        take_steps(weights, optimizer, range(saved_after, STEPS))
        differing = [n for n in shapes if not torch.equal(weights[n], undisturbed[n])]
        assert differing == [], f"saved after {saved_after} steps"


def assert_shows_nan(params: Mapping[str, Any], shapes: Shapes) -> None:
    """A NaN in a gradient, in the first or in a later step, stops nothing and reaches W."""
    for bad_step in (0, 5):
        weights, optimizer = start(params, torch.float32, shapes)
        take_steps(weights, optimizer, range(bad_step))
        for name, grad in gradients(bad_step, shapes).items():
            grad.view(-1)[1] = torch.nan
            weights[name].grad = grad
        optimizer.step()
        take_steps(weights, optimizer, range(bad_step + 1, 12))
        assert [name for name in shapes if not weights[name].isnan().any()] == []
