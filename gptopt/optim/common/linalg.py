"""Linear algebra of matrix optimizers, on batches of matrices: (..., m, n).

Nothing here waits for a device: the number of iterations follows from the arguments alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gptopt.config.types import PolarMethod

Quintic = tuple[float, float, float]
"""a, b, c of a s + b s^3 + c s^5."""

JORDAN: Quintic = (3.4445, -4.7750, 2.0315)
"""Jordan et al. (2024): steepest at 0 of the quintics that keep [0, 1] bounded."""

SAFETY = 1.01
"""Rounding may lift a singular value above 1, where Polar Express is not safe."""

POLAR_EXPRESS: tuple[Quintic, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
"""Amsel et al. (2025), "The Polar Express": the best quintic for what each step leaves of
[1e-3, 1]; from the last one on, the fixed point is 1."""

NORM_FLOOR = 1e-7
"""A matrix of a smaller norm is not blown up to full size: it is rounding noise, or zero."""

GRAM_FROM = 512
"""Fewer rows than this are done before the detour by the Gram matrix has paid."""

SEGMENT = 3
"""Steps in float32 or float64 between two Gram matrices that are formed from X."""

BFLOAT16_SEGMENT = 2
"""In bfloat16 only the first steps of newton_schulz go by the Gram matrix. A third would give
a single singular value above noise a larger error than plain steps give it, and polar_express
lifts singular values close to where its next polynomials diverge."""


def polar(matrix: Tensor, *, method: PolarMethod, steps: int, dtype: torch.dtype) -> Tensor:
    """The orthogonal polar factor U V^T of ``matrix = U S V^T``.

    Args:
        matrix: Shape (..., m, n).
        method: newton_schulz (fast, singular values end in a band around 1), polar_express
            (as fast, a narrower band that closes with more steps), svd (exact and slow).
        steps: Iterations; svd takes none. Five of newton_schulz bring every singular value
            above 0.15 % of the Frobenius norm into [0.68, 1.21], five of polar_express every
            one above 0.1 % into [0.84, 1.13]; smaller ones stay below.
        dtype: What the products are computed in; bfloat16 adds an error of 1 to 2 %.

    Returns:
        Same shape and dtype as ``matrix``; zeros stay zeros.
    """
    if method == "svd":
        return _polar_svd(matrix)
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    result = torch.empty_like(flat)
    # On a CPU one by one: a batch does not fit into its caches, and saves nothing.
    by_one = matrix.device.type == "cpu"
    parts, targets = (flat.unbind(), result.unbind()) if by_one else ([flat], [result])
    for part, target in zip(parts, targets, strict=True):
        target.copy_(_polar_by_quintics(part.to(dtype), method, steps))
    return result.reshape(matrix.shape)


def _polar_by_quintics(x: Tensor, method: PolarMethod, steps: int) -> Tensor:
    norm = torch.linalg.matrix_norm(x, keepdim=True)
    if method == "newton_schulz":
        x = x / norm.clamp(min=NORM_FLOOR)
    else:
        x = x / (SAFETY * norm + NORM_FLOOR)
    m, n = sorted(x.shape[-2:])
    quintics = _quintics(method, steps)
    if m < GRAM_FROM or n < 2 * m or steps == 0:
        return _iterate(x, quintics, centred=False)
    if x.dtype == torch.bfloat16:
        first, rest = quintics[:BFLOAT16_SEGMENT], quintics[BFLOAT16_SEGMENT:]
        by_gram = method == "newton_schulz"
        x = _segment(x, first) if by_gram else _iterate(x, first, centred=False)
        return _iterate(x, rest, centred=True)
    for done in range(0, steps, SEGMENT):
        x = _segment(x, quintics[done : done + SEGMENT])
    return x


def newton_schulz(matrix: Tensor, *, steps: int, dtype: torch.dtype) -> Tensor:
    """``polar`` with Jordan's coefficients."""
    return polar(matrix, method="newton_schulz", steps=steps, dtype=dtype)


def _quintics(method: PolarMethod, steps: int) -> list[Quintic]:
    if method == "newton_schulz":
        return [JORDAN] * steps
    *early, last = POLAR_EXPRESS
    safe = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in early]
    return [*safe, *[last] * steps][:steps]


def _iterate(x: Tensor, quintics: list[Quintic], *, centred: bool) -> Tensor:
    """X <- a X + (b A + c A^2) X with A = X X^T: every singular value s to a s + b s^3 + c s^5.

    ``centred`` computes the same from E = A - I. Once singular values are near 1, E is small,
    and so are its roundings: in bfloat16 it takes up to a third off the error, at no cost.

        X <- (a + b + c) X + ((b + 2 c) E + c E^2) X
    """
    m = min(x.shape[-2:])
    identity = torch.eye(m, dtype=x.dtype, device=x.device) if centred else None
    for a, b, c in quintics:
        if centred:
            a, b = a + b + c, b + 2 * c
        gram = _gram(x, minus=identity)
        polynomial = symmetric_product(gram, gram, added=gram, beta=b, alpha=c)
        x = _times(polynomial, x, beta=a)
    return x


def _segment(x: Tensor, quintics: list[Quintic]) -> Tensor:
    """The same map as ``_iterate``, with most products m x m instead of m x n.

    A and the product Q of the steps' polynomials a I + S are followed, and X is multiplied
    once, at the end. A drifts from X X^T by rounding, which the next steps amplify, so a
    segment has to be short.

        S = b A + c A^2
        H = a A + S A;         A <- a H + S H             (a I + S)^2 A
        R <- a R + S R + q S;  q <- a q;  Q = q I + R     (a I + S) Q: q I apart till the end
    """
    gram = _gram(x)
    product, identity = torch.zeros((), dtype=x.dtype, device=x.device), 1.0
    for number, (a, b, c) in enumerate(quintics):
        s = symmetric_product(gram, gram, added=gram, beta=b, alpha=c)
        if number == 0:
            product, identity = s, a
        else:
            product = symmetric_product(s, product, added=product, beta=a, alpha=1)
            product, identity = product.add_(s, alpha=identity), a * identity
        if number < len(quintics) - 1:
            half = symmetric_product(s, gram, added=gram, beta=a, alpha=1)
            gram = symmetric_product(s, half, added=half, beta=a, alpha=1)
    product.diagonal(dim1=-2, dim2=-1).add_(identity)  # adding q X would be a pass more over X
    return x @ product if x.shape[-2] > x.shape[-1] else product @ x


def _gram(x: Tensor, *, minus: Tensor | None = None) -> Tensor:
    """X X^T, or of a tall X the smaller X^T X: nothing has to be transposed in memory."""
    one, other = (x.mT, x) if x.shape[-2] > x.shape[-1] else (x, x.mT)
    if minus is None:
        return symmetric_product(one, other)
    return symmetric_product(one, other, added=minus.expand(*x.shape[:-2], -1, -1), beta=-1)


def _times(polynomial: Tensor, x: Tensor, *, beta: float) -> Tensor:
    """beta X plus the product of X and a polynomial of its ``_gram``."""
    tall = x.shape[-2] > x.shape[-1]
    return _add_product(x, *((x, polynomial) if tall else (polynomial, x)), beta=beta, alpha=1)


def _add_product(added: Tensor, x: Tensor, y: Tensor, *, beta: float, alpha: float) -> Tensor:
    """beta added + alpha x y of matrices, or of batches of them."""
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    return add(added, x, y, beta=beta, alpha=alpha)


def symmetric_product(
    x: Tensor, y: Tensor, *, added: Tensor | None = None, beta: float = 0, alpha: float = 1
) -> Tensor:
    """beta added + alpha x y, where x y and ``added`` are symmetric: (..., m, k), (..., k, m).

    Large products in float32 or float64 on a CPU form the lower half in strips, and mirror it:
    5/8 of the arithmetic. Elsewhere plain products are faster.
    """
    m = x.shape[-2]
    if m < GRAM_FROM or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x @ y if added is None else _add_product(added, x, y, beta=beta, alpha=alpha)
    out = x.new_empty(*x.shape[:-2], m, m)
    for rows, end in _strips(m):
        strip = x[..., rows, :] @ y[..., :end]
        if added is not None:
            strip.mul_(alpha).add_(added[..., rows, :end], alpha=beta)
        out[..., rows, :end] = strip
        out[..., : rows.start, rows] = strip[..., : rows.start].mT
    return out


def _strips(m: int, count: int = 4) -> Iterator[tuple[slice, int]]:
    borders = [m * number // count for number in range(count + 1)]
    for start, end in zip(borders, borders[1:], strict=False):
        yield slice(start, end), end


def _polar_svd(matrix: Tensor) -> Tensor:
    precise = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    u, s, vh = torch.linalg.svd(precise, full_matrices=False)
    floor = s[..., :1] * max(matrix.shape[-2:]) * torch.finfo(s.dtype).eps
    return ((u * (s > floor).unsqueeze(-2)) @ vh).to(matrix.dtype)  # rank decides, not noise


def root_mean_square(matrix: Tensor) -> Tensor:
    """Of the entries of each matrix: (..., m, n) -> (..., 1, 1)."""
    return matrix.square().mean((-2, -1), keepdim=True).sqrt()


def spectral_norm(matrix: Tensor, *, steps: int) -> Tensor:
    """The largest singular value by power iteration, from below: (B, m, n) -> (B, 1, 1).

    The start comes from a generator of its own, so nothing else sees a difference.
    """
    numbers = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[-1], 1, generator=numbers, dtype=torch.float64)
    vector = start.to(matrix).expand(matrix.shape[0], -1, -1)
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(steps):
        image = matrix.mT @ (matrix @ vector)
        vector = image / torch.linalg.vector_norm(image, dim=-2, keepdim=True).clamp(min=tiny)
    return torch.linalg.vector_norm(matrix @ vector, dim=-2, keepdim=True)
