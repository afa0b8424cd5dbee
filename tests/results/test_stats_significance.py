from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gptopt.results.stats import mean_interval
from gptopt.results.stats.significance import (
    below_target,
    difference,
    holm,
    paired_difference,
    power,
    rank_p,
    seeds_needed,
)

TRACK_3_SIGMA = 0.0013
DRAWS = 500


def binomial_range(chance: float) -> tuple[float, float]:
    """Where the share of ``DRAWS`` trials lies but for one simulation in ten thousand."""
    low, high = stats.binom.interval(0.9999, DRAWS, chance)
    return low / DRAWS, high / DRAWS


@pytest.mark.parametrize(
    ("losses", "passes"),
    [
        # 3.09 x 0.0013 = 0.004017: one run must be that far below 3.28, four runs half of it.
        ([3.27598], True),
        ([3.27599], False),
        ([3.27799] * 4, True),
        ([3.27800] * 4, False),
        ([3.28], False),
        ([3.29] * 50, False),
        ([3.2, math.inf], False),
    ],
)
def test_the_rule_of_the_optimization_track_at_its_border(
    losses: list[float], passes: bool
) -> None:
    assert below_target(losses, 3.28, sigma=TRACK_3_SIGMA).passes is passes


def test_the_margin_of_the_optimization_track_is_a_thousandth() -> None:
    verdict = below_target([3.276] * 9, 3.28, sigma=TRACK_3_SIGMA)
    assert verdict.needed == pytest.approx(0.004, abs=2e-5)
    assert verdict.distance == pytest.approx(0.012)
    # 0.012 / 0.0013 = 9.23 standard errors
    assert verdict.p == pytest.approx(stats.norm.sf(0.012 / 0.0013))
    at_border = below_target([3.28 - 3.09 * 0.0013 / 2] * 4, 3.28, sigma=TRACK_3_SIGMA)
    assert at_border.p == pytest.approx(0.001, rel=2e-3)


def test_an_estimated_spread_takes_more_than_a_known_one() -> None:
    losses = [3.2760, 3.2780, 3.2770, 3.2775]
    verdict = below_target(losses, 3.28)
    expected = stats.ttest_1samp(losses, 3.28, alternative="less")
    assert verdict.p == pytest.approx(expected.pvalue)
    # t(0.999; 3) = 10.21 in every table
    assert verdict.needed == pytest.approx(10.21 * np.std(losses, ddof=1), rel=1e-3)
    assert verdict.passes == (expected.pvalue <= 0.001)


def test_a_target_needs_losses() -> None:
    for losses in ([], [3.2]):
        with pytest.raises(ValueError, match="known sigma"):
            below_target(losses, 3.28)
    with pytest.raises(ValueError, match="NaN"):
        below_target([3.2, math.nan], 3.28)


def test_false_records_are_one_in_a_thousand() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(3.28, TRACK_3_SIGMA, (DRAWS, 4))
    verdicts = sum(below_target(row, 3.28, sigma=TRACK_3_SIGMA).passes for row in losses)
    assert verdicts / DRAWS <= binomial_range(0.001)[1]


def test_differences_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 0.01, 5).tolist(), rng.normal(3.01, 0.03, 8).tolist()
    found, expected = difference(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.low < found.gap < found.high
    pairs = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    assert pairs.p == pytest.approx(stats.ttest_rel(a, b[:5]).pvalue)
    assert pairs.n == (5, 5)


def test_pairs_cancel_what_a_seed_brings_to_both_sides() -> None:
    seeds = [0.3, -0.2, 0.1, 0.05]
    reference = {seed: 3 + shift for seed, shift in enumerate(seeds)}
    better = {seed: 2.99 + shift + 0.001 * (seed % 2) for seed, shift in enumerate(seeds)}
    assert paired_difference(better, reference).p < 0.001
    assert difference(list(better.values()), list(reference.values())).p > 0.9


def test_seeds_that_one_side_lacks_are_no_pairs() -> None:
    assert paired_difference({0: 1.0, 1: 2.0, 2: 9.0}, {1: 2.5, 2: 9.25, 3: 7.0}).gap == -0.375
    assert math.isnan(paired_difference({0: 1.0}, {1: 2.0}).gap)


def test_a_diverged_run_is_the_worst_of_its_side_and_no_reason_to_be_silent() -> None:
    bad, good = [2.0, 2.1, math.inf, math.inf, math.inf], [2.2, 2.3, 2.4, 2.5, 2.6]
    assert difference(bad, good).gap == math.inf
    assert math.isnan(difference(bad, good).p)
    # Of the 252 ways to deal 10 ranks, those at least as unequal as U = 10 of 25.
    assert rank_p(bad, good) == pytest.approx(
        stats.mannwhitneyu([1, 2, 8, 9, 10], [3, 4, 5, 6, 7], method="asymptotic").pvalue, abs=0.15
    )
    assert rank_p([math.inf] * 5, good) < 0.02
    for test in (difference, rank_p):
        with pytest.raises(ValueError, match="NaN"):
            test([math.nan, 1.0], good)


def test_holm_repeats_an_example_by_hand() -> None:
    # 0.01 x 4, 0.03 x 3, max(0.03 x 3, 0.04 x 2), max(.., 0.05 x 1)
    adjusted = holm([0.04, 0.01, math.nan, 0.03, 0.05])
    assert adjusted[:2] == pytest.approx([0.09, 0.04])
    assert math.isnan(adjusted[2])
    assert adjusted[3:] == pytest.approx([0.09, 0.09])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(size=(DRAWS, 6))
    share = np.mean([min(holm(row)) <= 0.05 for row in p])
    assert share <= binomial_range(0.05)[1]


def test_welch_finds_nothing_where_nothing_is_in_one_of_twenty() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, (DRAWS, 5)), rng.normal(0, 3, (DRAWS, 9))
    found = [difference(*pair) for pair in zip(a, b, strict=True)]
    low, high = binomial_range(0.05)
    assert low <= np.mean([one.p <= 0.05 for one in found]) <= high + 0.01  # Welch is approximate
    assert 1 - high - 0.01 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 1 - low


def test_intervals_of_means_cover_the_mean() -> None:
    rng = np.random.default_rng(4)
    found = [mean_interval(row.tolist()) for row in rng.normal(3, 0.01, (DRAWS, 4))]
    low, high = binomial_range(0.95)
    assert low <= np.mean([one.low <= 3 <= one.high for one in found]) <= high


def test_power_is_the_share_of_simulated_tests_that_see_the_effect() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, (DRAWS, 8)), rng.normal(1.2, 1, (DRAWS, 8))
    seen = stats.ttest_ind(a, b, axis=1, alternative="less").pvalue <= 0.05
    low, high = binomial_range(power(1.2, 1.0, 8))
    assert low <= seen.mean() <= high


def test_seeds_for_a_thousandth_at_the_usual_spread_of_124m_models() -> None:
    # By the normal distribution 2 (1.645 + 0.842)^2 (0.00107 / 0.001)^2 = 14.2; t takes one more.
    assert seeds_needed(0.001, 0.00107) == 15
    n = seeds_needed(0.01, 0.01)
    assert power(0.01, 0.01, n) >= 0.8 > power(0.01, 0.01, n - 1)
    assert seeds_needed(1.0, 0.001) == 2
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(0.0, 1.0)
