"""Pseudo-inverses against torch.linalg.pinv, and how many steps they take."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from gptopt.optim.common.pinv import accelerated_pinv, damped, pinv

STARTS = ["psd", "general", "cubic"]


def symmetric(eigenvalues: torch.Tensor) -> torch.Tensor:
    """Two matrices with these eigenvalues, float64."""
    n = len(eigenvalues)
    numbers = torch.Generator().manual_seed(n)
    vectors = torch.linalg.qr(torch.randn(2, n, n, generator=numbers, dtype=torch.float64)).Q
    return vectors * eigenvalues.double() @ vectors.mT


def methods(rcond: float, steps: int = 60) -> dict[str, partial[torch.Tensor]]:
    accelerated = {
        start: partial(accelerated_pinv, rcond=rcond, steps=steps, start=start) for start in STARTS
    }
    return {"plain": partial(pinv, rcond=rcond, steps=steps), **accelerated}


@pytest.mark.parametrize("method", ["plain", *STARTS])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_what_is_above_the_cut_is_inverted(method: str, size: float) -> None:
    matrix = size * symmetric(torch.logspace(0, -2, 30))
    exact = torch.linalg.inv(matrix)
    # Accelerated: every residual is below that at the cut, 1e-6. The plain iteration ends one
    # step before the trace reaches the rank, in float32 the trace as float32 sees it.
    rounded = 1e-3 if method == "plain" else 1e-5
    for dtype, limit in ((torch.float64, 1e-6), (torch.float32, rounded)):
        result = methods(1e-3)[method](matrix.to(dtype)).double()
        assert (result - exact).norm() < limit * exact.norm()


def test_the_plain_iteration_stops_at_the_rank() -> None:
    # Ten eigenvalues far below the cut: the exact pseudo-inverse leaves them out.
    matrix = symmetric(torch.cat([torch.logspace(0, -1.5, 20), torch.full((10,), 1e-7)]))
    expected = torch.linalg.pinv(matrix, rtol=1e-3, hermitian=True)
    result = pinv(matrix, rcond=1e-3, steps=100)
    # when it stops the small ones have grown by 2^k a only, 1e-3 of the others' inverses
    assert (result - expected).norm() < 2e-3 * expected.norm()
    without_stop = pinv(matrix, rcond=0.0, steps=100)
    assert (without_stop - expected).norm() > 1e3 * expected.norm()


def test_one_matrix_of_a_batch_stops_without_the_others() -> None:
    easy, hard = symmetric(torch.linspace(0.5, 1, 12)), symmetric(torch.logspace(0, -2.5, 12))
    together = pinv(torch.cat([easy, hard]), rcond=1e-3, steps=60)
    torch.testing.assert_close(together[2:], pinv(hard, rcond=1e-3, steps=60), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("start", "needed"), [("psd", 7), ("cubic", 12), ("general", 14)])
def test_the_accelerated_iteration_takes_as_many_steps_as_published(
    start: str, needed: int
) -> None:
    matrix = symmetric(torch.logspace(0, -3, 20))
    run = partial(accelerated_pinv, matrix, rcond=1e-3, start=start)
    enough, all_steps = run(steps=needed), run(steps=50)
    assert torch.equal(enough, all_steps)
    assert not torch.equal(run(steps=needed - 1), enough)


@pytest.mark.parametrize("method", ["plain", *STARTS])
def test_zeros_stay_zeros(method: str) -> None:
    zeros = torch.zeros(2, 4, 4)
    assert torch.equal(methods(1e-3)[method](zeros), zeros)


def test_damping_is_relative_to_the_mean_eigenvalue() -> None:
    matrix = symmetric(torch.tensor([1.0, 2.0, 6.0]))
    eigenvalues = torch.linalg.eigvalsh(damped(matrix, 0.1))
    expected = torch.tensor([1.3, 2.3, 6.3], dtype=torch.float64).expand(2, 3)
    torch.testing.assert_close(eigenvalues, expected)
    assert damped(matrix, 0) is matrix
