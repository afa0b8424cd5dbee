"""Newton-Schulz: what it does to singular values, and laws of the polar factor."""

from __future__ import annotations

import pytest
import torch

from gptopt.optim.common.linalg import newton_schulz

SHAPES = [(12, 12), (7, 20), (20, 7), (1, 9), (9, 1)]


def singular(values: torch.Tensor, m: int, n: int) -> torch.Tensor:
    """An (m, n) matrix with these singular values and random vectors, float64."""
    numbers = torch.Generator().manual_seed(m + n)
    k = len(values)
    u = torch.linalg.qr(torch.randn(m, k, generator=numbers, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, k, generator=numbers, dtype=torch.float64)).Q
    return u @ torch.diag(values) @ v.mT


def float64(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    return newton_schulz(matrix, steps=steps, dtype=torch.float64)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_five_steps_bring_singular_values_near_one(m: int, n: int) -> None:
    # The bounds that the docstring states, on 30 spectra from 0.15 % of the norm upwards.
    for seed in range(30):
        numbers = torch.Generator().manual_seed(seed)
        exponents = -3 * torch.rand(min(m, n), generator=numbers, dtype=torch.float64)
        values = 10**exponents
        values = values.clamp(min=0.00151 * values.norm().item())
        after = torch.linalg.svdvals(float64(singular(values, m, n)))
        assert after.min() > 0.68
        assert after.max() < 1.21


def test_smaller_singular_values_stay_below() -> None:
    values = torch.tensor([1.0, 1e-3, 1e-4], dtype=torch.float64)
    after = torch.linalg.svdvals(float64(singular(values, 5, 6)))
    # 3.4445^5 = 485 times as large at most, by the slope of the polynomial at 0
    assert 0.4 < after[1] < 0.485
    assert 0.04 < after[2] < 0.0485


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_singular_vectors_stay_and_values_follow_the_polynomial(m: int, n: int) -> None:
    values = torch.linspace(0.1, 3, min(m, n), dtype=torch.float64)
    matrix = singular(values, m, n)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(float64(matrix, steps=3), u @ torch.diag(s) @ vh, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_transposed_input_gives_the_transposed_output(m: int, n: int) -> None:
    matrix = torch.randn(3, m, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float64(matrix).shape == (3, m, n)
    torch.testing.assert_close(float64(matrix.mT).mT, float64(matrix), rtol=0, atol=1e-12)


def test_the_length_of_the_input_does_not_matter() -> None:
    matrix = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        small = newton_schulz(matrix * 2.0**-16, steps=5, dtype=dtype)
        assert torch.equal(small, newton_schulz(matrix, steps=5, dtype=dtype))


def test_zeros_stay_zeros_and_noise_stays_small() -> None:
    zeros = torch.zeros(2, 4, 6)
    assert torch.equal(newton_schulz(zeros, steps=5, dtype=torch.bfloat16), zeros)
    noise = 1e-12 * torch.eye(4, 6)
    assert newton_schulz(noise, steps=5, dtype=torch.float32).abs().max() < 0.01


def test_one_matrix_of_a_batch_does_not_touch_the_others() -> None:
    matrix = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = matrix * torch.tensor([1.0, 1e3, 1e-3, 0.0], dtype=torch.float64)[:, None, None]
    expected = float64(matrix)
    expected[3] = 0
    torch.testing.assert_close(float64(scaled), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_of_the_input_come_back(dtype: torch.dtype) -> None:
    matrix = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = newton_schulz(matrix, steps=5, dtype=torch.bfloat16)
    assert result.shape == matrix.shape
    assert result.dtype == dtype
    one = newton_schulz(matrix[1, 2], steps=5, dtype=torch.bfloat16)
    torch.testing.assert_close(one, result[1, 2], rtol=0.02, atol=0.02)
