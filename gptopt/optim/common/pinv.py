"""Pseudo-inverses of symmetric positive semi-definite matrices by Newton-Schulz iterations.

Shapes (B, n, n). A relative cut ``rcond`` says which eigenvalues are resolved: those of at
least rcond times the largest. On the rest an iteration that is stopped in time acts as a
damped inverse. Nothing is read back from a device that would have to be waited for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptopt.optim.common.linalg import spectral_norm

POWER_STEPS = 32
MARGIN = 1.2
"""Power iteration stays below the largest eigenvalue; beyond it the iteration would diverge."""

RESOLVED = 1e-6
"""The accelerated iteration ends once the eigenvalue at the cut is inverted this closely."""


def damped(matrix: Tensor, damping: float) -> Tensor:
    """``matrix`` + damping times its mean eigenvalue times I."""
    if damping == 0:
        return matrix
    mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + damping * mean * eye


def pinv(matrix: Tensor, *, rcond: float, steps: int) -> Tensor:
    """The iteration of Ben-Israel and Cohen with the stop of Soederstrom and Stewart (1974).

        X <- 2 X - X A X,  from X = a A,  a = 1 / |A|_1^2

    The trace of X A counts the eigenvalues that are inverted by now. Each time it passes a
    whole number, |X_new - X| / (2^k a) is about the eigenvalue that is being inverted in
    step k; when that is below the cut, X stays as it was.

    Args:
        matrix: A, symmetric positive semi-definite.
        rcond: The cut, relative to the largest eigenvalue.
        steps: At most so many.

    Returns:
        X; zeros stay zeros.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    cut = rcond * spectral_norm(matrix, steps=POWER_STEPS)
    norm = torch.linalg.matrix_norm(matrix, 1)[:, None, None]
    first = 1 / norm.square().clamp(min=tiny)
    x = first * matrix
    product = x @ matrix
    trace = _trace(product)
    done = torch.zeros_like(cut, dtype=torch.bool)
    for step in range(steps):
        new = torch.baddbmm(x, product, x, beta=2, alpha=-1)
        new_product = new @ matrix
        new_trace = _trace(new_product)
        size = torch.linalg.matrix_norm(new - x, keepdim=True) / (2.0**step * first)
        done |= (new_trace.floor() > trace.floor()) & (size <= cut)
        if matrix.device.type == "cpu" and done.all():
            break
        x = torch.where(done, x, new)
        product, trace = torch.where(done, product, new_product), new_trace
    return x


def accelerated_pinv(
    matrix: Tensor, *, rcond: float, steps: int, start: Literal["psd", "general", "cubic"]
) -> Tensor:
    """Newton-Schulz with each step scaled for the interval in which A Y has its eigenvalues.

    With A scaled to eigenvalues in [0, 1] and l the scaled cut, those in [l, 1] leave residuals
    |1 - a y| of at most r, and

        Y <- 2 / w Y (2 I - A Y),  w = 2 - r^2,  r <- r^2 / w                      (1)

    from
        psd      Y = 8 / D ((1 + l) I - A),  D = 1 + 6 l + l^2,  r = (1 - l)^2 / D
        general  Y = 2 / (1 + l^2) A,  r = (1 - l^2) / (1 + l^2)
        cubic    Y = (b I + c A) A,  r = (2 + 3 l - 3 l^2 - 2 l^3)^2 / D,  with
                 D = 4 + q (12 + q (39 + 4 q)),  q = l (1 + l),
                 b = 54 (1 + l)^2 (1 + l + l^2) / D,  c = -54 (1 + l)^3 / D

    The number of steps depends on ``rcond`` alone: (1) is followed at l until it is inverted.

    Args:
        matrix: A, symmetric positive semi-definite.
        rcond: The cut, relative to the largest eigenvalue.
        steps: At most so many.
        start: psd needs the fewest steps, and eigenvalues that rounding has not made
            negative; general and cubic take any.

    Returns:
        Y for A itself; zeros stay zeros.
    """
    largest = MARGIN * spectral_norm(matrix, steps=POWER_STEPS)
    scale = largest.clamp(min=torch.finfo(matrix.dtype).tiny)
    a = matrix / scale
    low = rcond / MARGIN
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    if start == "psd":
        d = 1 + 6 * low + low**2
        y, r = 8 / d * ((1 + low) * eye - a), (1 - low) ** 2 / d
        image = 8 / d * ((1 + low) * low - low**2)
    elif start == "general":
        d = 1 + low**2
        y, r = 2 / d * a, (1 - low**2) / d
        image = 2 / d * low**2
    else:
        q = low * (1 + low)
        d = 4 + q * (12 + q * (39 + 4 * q))
        b, c = 54 * (1 + low) ** 2 * (1 + low + low**2) / d, -54 * (1 + low) ** 3 / d
        y, r = torch.baddbmm(a, a, a, beta=b, alpha=c), (2 + 3 * low - 3 * low**2 - 2 * low**3)
        r = r**2 / d
        image = (b + c * low) * low**2
    for _ in range(steps):
        if abs(1 - image) < RESOLVED:
            break
        w = 2 - r**2
        y = torch.baddbmm(y, y, a @ y, beta=4 / w, alpha=-2 / w)  # (1)
        image, r = 2 / w * image * (2 - image), r**2 / w
    return torch.where(largest > 0, y / scale, torch.zeros_like(y))


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
