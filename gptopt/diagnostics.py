"""What a step does to each layer: sizes, spectra and directions of weights and updates.

Only reads, so training goes on to the bit as without it. U is W after the step minus W before
it, decay included; G is the gradient that the step got.

    every parameter
        weight_rms          root mean square of the entries of W after the step
        update_rms          the same of U
        relative_update     |U| / |W|, W before the step, Frobenius norms
        update_angle_deg    angle between U and -G; 90 where one of them is zero
    parameters of role matrix, also
        weight_spectral_norm, update_spectral_norm  largest singular value, by power iteration
                            from a fixed start, from below
        weight_stable_rank, update_stable_rank      |.|^2 / spectral norm^2
        update_orthogonality  |S - I| / |I|, S = U U^T times min(m, n) / |U|^2: 0 where all
                            singular values of U are equal; of U^T, where m > n

What a rule says of itself (``diagnostics`` of optim/common/base.py) stands beside them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from gptopt.optim import RoutedOptimizer
from gptopt.optim.common.base import Group
from gptopt.optim.common.linalg import spectral_norm

POWER_STEPS = 32
"""Of a normal matrix the spectral norm is then 1 to 2 % too small, of one with a gap exact."""

SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "median": statistics.median,
    "max": max,
}


class StepDiagnostics:
    """Measures one step: made before it, ``measure`` after it, with the gradients still there.

    Keeps a copy of the weights in between.
    """

    def __init__(self, optimizer: RoutedOptimizer) -> None:
        self._optimizer = optimizer
        self._batches = [
            (group["role"], [name for name, _ in batch], [param for _, param in batch])
            for group in optimizer.param_groups
            for batch in _alike(group)
        ]
        self._before = [_stack(params) for *_, params in self._batches]
        self._gradients: list[list[Tensor]] = [
            [param.grad for param in params if param.grad is not None]
            for *_, params in self._batches
        ]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Numbers by ``<parameter>/<name>``, a rule's own of no parameter by ``<rule>/<name>``.

        ``min``, ``median`` and ``max`` in the place of the parameter are over those of role
        matrix.
        """
        values: dict[str, float] = {}
        matrices: dict[str, list[float]] = {}
        for (role, names, params), before, grads in zip(
            self._batches, self._before, self._gradients, strict=True
        ):
            found = _of_batch(before, _stack(params), _stack(grads), is_matrix=role == "matrix")
            # one transfer to the host
            numbers = torch.stack([found[key].double().cpu() for key in found]).tolist()
            for key, row in zip(found, numbers, strict=True):
                values |= {f"{name}/{key}": number for name, number in zip(names, row, strict=True)}
                if role == "matrix":
                    matrices.setdefault(key, []).extend(row)
        for key, row in matrices.items():
            values |= {f"{name}/{key}": summary(row) for name, summary in SUMMARIES.items()}
        for home, own in self._optimizer.diagnostics().items():
            values |= {f"{home}/{key}": float(number) for key, number in own.items()}
        return values


def _alike(group: Group) -> list[list[tuple[str, Tensor]]]:
    """The parameters of ``group`` that have gradients, with their names, by shape and type."""
    batches: dict[object, list[tuple[str, Tensor]]] = {}
    for name, param in zip(group["param_names"], group["params"], strict=True):
        if param.grad is not None:
            kind = (param.shape, param.dtype, param.device)
            batches.setdefault(kind, []).append((name, param))
    return list(batches.values())


def _stack(tensors: list[Tensor]) -> Tensor:
    """A copy, (B, *shape), in float32 at least."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    return stacked.to(torch.promote_types(stacked.dtype, torch.float32))


def _of_batch(before: Tensor, after: Tensor, grad: Tensor, *, is_matrix: bool) -> dict[str, Tensor]:
    """Each number of B parameters of one shape: (B, *shape) -> (B,)."""
    update = after - before
    tiny = torch.finfo(update.dtype).tiny
    size, weight_size = _norm(update), _norm(after)
    root = update[0].numel() ** 0.5
    slopes = -(update * grad).flatten(1).sum(1)
    cosine = slopes / (size * _norm(grad)).clamp(min=tiny)
    found = {
        "weight_rms": weight_size / root,
        "update_rms": size / root,
        "relative_update": size / _norm(before).clamp(min=tiny),
        "update_angle_deg": cosine.clamp(-1, 1).acos().rad2deg(),
    }
    if is_matrix:
        for name, matrix, norm in (("weight", after, weight_size), ("update", update, size)):
            largest = spectral_norm(matrix, steps=POWER_STEPS).flatten()
            found[f"{name}_spectral_norm"] = largest
            found[f"{name}_stable_rank"] = (norm / largest.clamp(min=tiny)).square()
        found["update_orthogonality"] = orthogonality(update)
    return found


def orthogonality(matrix: Tensor) -> Tensor:
    """How far matrices are from a multiple of orthonormal rows (or columns): (B, m, n) -> (B,).

    With k = min(m, n) singular values s, sqrt(mean of (s^2 / mean of s^2 - 1)^2): 0 where all
    are equal, sqrt(k - 1) where one alone is not zero. Zeros give 1.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    gram = matrix.mT @ matrix if tall else matrix @ matrix.mT
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(gram.dtype).tiny)
    gram = gram / mean[:, None, None]
    gram.diagonal(dim1=-2, dim2=-1).sub_(1)
    return torch.linalg.matrix_norm(gram) / gram.shape[-1] ** 0.5


def _norm(stacked: Tensor) -> Tensor:
    return torch.linalg.vector_norm(stacked.flatten(1), dim=1)
