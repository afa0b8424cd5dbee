"""The polar factor: bounds of every method, and the detour by the Gram matrix."""

from __future__ import annotations

import pytest
import torch

from gptopt.optim.common import linalg
from gptopt.optim.common.linalg import polar, spectral_norm, symmetric_product

SHAPES = [(12, 12), (7, 20), (20, 7), (1, 9)]
METHODS = ["newton_schulz", "polar_express", "svd"]


def spectrum(values: torch.Tensor, m: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An (m, n) matrix of these singular values, and its polar factor, in float64."""
    numbers = torch.Generator().manual_seed(m + n)
    k = len(values)
    u = torch.linalg.qr(torch.randn(m, k, generator=numbers, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, k, generator=numbers, dtype=torch.float64)).Q
    return u @ torch.diag(values.double()) @ v.mT, u @ v.mT


def float64(matrix: torch.Tensor, method: str, steps: int = 5) -> torch.Tensor:
    return polar(matrix, method=method, steps=steps, dtype=torch.float64)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_five_steps_of_polar_express_end_within_the_stated_band(m: int, n: int) -> None:
    for seed in range(30):
        numbers = torch.Generator().manual_seed(seed)
        values = 10 ** (-3 * torch.rand(min(m, n), generator=numbers, dtype=torch.float64))
        values = values.clamp(
            min=0.00102 * values.norm().item()
        )  # 0.1 % after the division by 1.01
        after = torch.linalg.svdvals(float64(spectrum(values, m, n)[0], "polar_express"))
        assert after.min() > 0.84
        assert after.max() < 1.13


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_many_steps_of_polar_express_reach_the_exact_factor(m: int, n: int) -> None:
    matrix, factor = spectrum(torch.linspace(0.01, 1, min(m, n)), m, n)
    result = float64(matrix, "polar_express", steps=12)
    torch.testing.assert_close(result, factor, rtol=0, atol=1e-12)  # fixed point 1, not 1 / 1.01


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_svd_is_the_exact_factor_and_leaves_the_null_space_at_zero(m: int, n: int) -> None:
    matrix, factor = spectrum(torch.linspace(0.01, 1, max(1, min(m, n) - 2)), m, n)
    torch.testing.assert_close(float64(matrix, "svd"), factor, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_zeros_stay_zeros_and_nothing_is_not_finite(method: str, dtype: torch.dtype) -> None:
    zeros = torch.zeros(2, 4, 6)
    assert torch.equal(polar(zeros, method=method, steps=5, dtype=dtype), zeros)
    numbers = torch.Generator().manual_seed(0)
    for size in (1e-38, 1e-8, 1e8, 1e18):
        matrix = size * torch.randn(3, 5, 4, generator=numbers)
        assert polar(matrix, method=method, steps=5, dtype=dtype).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_the_inner_product_with_the_polar_factor_is_the_nuclear_norm(method: str) -> None:
    numbers = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 14, generator=numbers, dtype=torch.float64)
    nuclear = torch.linalg.svdvals(matrix).sum().item()
    # Newton-Schulz never ends; what is exact to 1e-12 here is the factor of the two others.
    tolerance = 0.3 if method == "newton_schulz" else 1e-12
    product = (matrix * float64(matrix, method, steps=12)).sum().item()
    assert product == pytest.approx(nuclear, rel=tolerance)


def test_entries_of_the_factor_have_the_root_mean_square_of_its_shape() -> None:
    matrix = torch.randn(6, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one in (matrix, matrix.mT):
        rms = float64(one, "svd").square().mean().sqrt().item()
        assert rms == pytest.approx(24**-0.5, rel=1e-12)


@pytest.mark.parametrize("method", ["newton_schulz", "polar_express"])
@pytest.mark.parametrize("steps", [1, 2, 5, 6])
def test_the_gram_matrix_gives_the_same_map(
    method: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 13, 40, generator=numbers, dtype=torch.float64)
    plain = float64(matrix, method, steps)
    monkeypatch.setattr(linalg, "GRAM_FROM", 8)  # also turns on the strips
    assert not torch.equal(float64(matrix, method, steps), plain)
    torch.testing.assert_close(float64(matrix, method, steps), plain, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        float64(matrix.mT, method, steps).mT, float64(matrix, method, steps), rtol=0, atol=1e-12
    )


def matrices(m: int, n: int) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=numbers, dtype=torch.float64)

    noise, turn = normal(m, n), torch.linalg.qr(normal(n, n)).Q
    sizes = torch.arange(1, n + 1, dtype=torch.float64)
    spike = normal(m, 1) @ normal(1, n)
    return {
        "isotropic": noise,
        "falling like 1 / k": noise / sizes @ turn,
        "falling slowly": noise / sizes.sqrt() @ turn,
        "near low rank": normal(m, m // 8) @ normal(m // 8, n) + 0.1 * noise,
        **{f"noise and {size} u v": noise + size * spike for size in (0.3, 1, 3, 10)},
    }


@pytest.mark.parametrize("method", ["newton_schulz", "polar_express"])
def test_in_bfloat16_the_fast_path_has_no_larger_error_than_plain_steps(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, matrix in matrices(512, 1024).items():
        exact = float64(matrix, method)
        error = {}
        for rows in (512, 513):
            monkeypatch.setattr(linalg, "GRAM_FROM", rows)
            rounded = polar(matrix, method=method, steps=5, dtype=torch.bfloat16)
            error[rows] = (rounded - exact).norm().item()
        # 0.6 to 1.002 times as large here; with one more step by the Gram matrix up to 1.25 times,
        # of polar_express 200 times
        assert error[512] < 1.005 * error[513], kind


def test_strips_give_the_symmetric_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linalg, "GRAM_FROM", 4)
    x = torch.randn(3, 11, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = x @ x.mT
    close = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(symmetric_product(x, x.mT), gram, **close)
    result = symmetric_product(gram, gram, added=gram, beta=0.5, alpha=0.25)
    torch.testing.assert_close(result, 0.5 * gram + 0.25 * gram @ gram, rtol=0, atol=1e-11)


def test_the_spectral_norm_is_estimated_from_below_and_repeats() -> None:
    matrix = torch.randn(4, 30, 20, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    estimate = spectral_norm(matrix, steps=32)[:, 0, 0]
    exact = torch.linalg.matrix_norm(matrix, 2)
    assert torch.equal(estimate, spectral_norm(matrix, steps=32)[:, 0, 0])
    assert torch.equal(torch.get_rng_state(), before)
    assert (estimate <= exact * (1 + 1e-6)).all()
    assert (estimate >= 0.97 * exact).all()
    assert torch.equal(spectral_norm(torch.zeros(2, 3, 3), steps=4), torch.zeros(2, 1, 1))
