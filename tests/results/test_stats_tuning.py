from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gptopt.results import load
from gptopt.results.stats.fits import PowerLaw, fit_exponent, fit_power_law, speed_up
from gptopt.results.stats.targets import (
    Cost,
    median_interval,
    performance_profile,
    profile_score,
    ratios,
    to_target,
)
from gptopt.results.stats.tuning import expected_best, importance, sensitivity, width

from .rundirs import TOKENS_PER_STEP, configure, eval_row, start_row, train_row, write_run


def test_the_best_of_k_is_the_mean_over_all_draws() -> None:
    losses = [3.0, 2.5, math.inf, 2.7, 2.5]
    capped = [min(loss, 5.5) for loss in losses]
    expected = [
        np.mean([min(draw) for draw in itertools.combinations(capped, k)]) for k in range(1, 6)
    ]
    assert expected_best(losses, ceiling=5.5) == pytest.approx(expected)


def test_a_nan_is_refused_and_never_wins() -> None:
    for use in (expected_best, sensitivity):
        with pytest.raises(ValueError, match="NaN"):
            use([3.0, math.nan], ceiling=5.0)
    with pytest.raises(ValueError, match="NaN"):
        width([1, 2], [3.0, math.nan])


def test_sensitivity_is_the_mean_excess_below_the_ceiling() -> None:
    assert sensitivity([2.0, 2.5, math.inf, 9.0], ceiling=4.0) == pytest.approx((0.5 + 2 + 2) / 4)


def test_width_is_where_lines_between_rates_cross_the_margin() -> None:
    # From 2.0 at rate 4, 0.1 is crossed half way to 2.2 at 8, and a third of the way to 2.3 at 1.
    found = width([8, 1, 4, 32], [2.2, 2.3, 2.0, 2.1], margin=0.1)
    assert found == (pytest.approx(0.5 + 2 / 3), True)


def test_a_cliff_ends_a_width_at_the_last_rate_that_held() -> None:
    assert width([1, 2, 4], [2.1, 2.0, math.inf], margin=0.1) == (1.0, False)
    assert width([1, 2, 4], [3.0, 2.0, math.inf], margin=0.5) == (0.5, True)
    assert width([1, 2], [math.inf, math.inf]) == (0.0, False)


def test_importance_of_a_sum_is_the_variance_of_its_terms() -> None:
    # x in 0, 1, 2 has variance 2/3, y in 0, 3 has 9/4, and there is nothing in common.
    grid = [{"x": x, "y": y, "loss": x + y} for x in (0, 1, 2) for y in (0, 3)]
    found = importance(pd.DataFrame(grid), ["x", "y"], ceiling=99.0).set_index("setting")["share"]
    total = 2 / 3 + 9 / 4
    assert found.to_dict() == pytest.approx(
        {"y": 9 / 4 / total, "x": 2 / 3 / total, "x x y": 0.0}, abs=1e-12
    )


def test_importance_of_a_product_of_signs_is_all_in_the_pair() -> None:
    grid = [{"x": x, "y": y, "z": 1, "loss": x * y} for x in (-1, 1) for y in (-1, 1)]
    table = pd.concat([pd.DataFrame(grid)] * 2)  # two seeds
    found = importance(table, ["x", "y", "z"], ceiling=9.0)
    assert (found["setting"][0], found["share"][0]) == ("x x y", pytest.approx(1.0))
    assert found["share"][1:].tolist() == pytest.approx([0.0] * 5)


def test_importance_agrees_with_an_analysis_of_variance() -> None:
    # Sums of squares of a two-way layout, by the textbook: what is left is the interaction.
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4, 3))
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    total = ((cells - cells.mean()) ** 2).sum()
    expected = {
        "a": 3 * ((rows - cells.mean()) ** 2).sum() / total,
        "b": 4 * ((columns - cells.mean()) ** 2).sum() / total,
    }
    expected["a x b"] = 1 - sum(expected.values())
    table = pd.DataFrame(
        [{"a": a, "b": b, "loss": cells[a, b]} for a in range(4) for b in range(3)]
    )
    found = importance(table, ["a", "b"], ceiling=99.0).set_index("setting")["share"]
    assert found.to_dict() == pytest.approx(expected)


def test_importance_takes_a_full_grid() -> None:
    table = pd.DataFrame({"x": [0, 0, 1], "y": [0, 1, 0], "loss": 1.0})
    with pytest.raises(ValueError, match="No run at x=1, y=1"):
        importance(table, ["x", "y"], ceiling=9.0)


def test_costs_to_a_target_are_censored_by_infinity(tmp_path: Path) -> None:
    for seed, losses in enumerate(([3.0, 2.0, 2.5], [3.0, "nan", 2.6], [2.0, 1.9, 1.8])):
        rows = [start_row(1, 0), *(eval_row(10 * (k + 1), loss) for k, loss in enumerate(losses))]
        write_run(tmp_path / f"{seed}", configure("muon", 0.1, seed), [rows])
    runs = load(tmp_path)
    steps = to_target(runs, 2.0, cost="step")
    assert steps["reached"].tolist() == [20, math.inf, 10]
    assert steps["spent"].tolist() == [30, 30, 30]
    flops = to_target(runs, 2.0, cost="flops")["reached"].tolist()
    per_step = TOKENS_PER_STEP * 6 * 130_000
    assert flops == [20 * per_step, math.inf, 10 * per_step]


@pytest.mark.parametrize("cost", ["step", "tokens", "seconds", "flops"])
def test_a_target_is_crossed_on_the_line_between_two_evaluations(
    tmp_path: Path, cost: Cost
) -> None:
    # 2.25 lies three quarters of the way from 3.0 to 2.0; behind a nan there is no line
    for seed, losses in enumerate(([3.0, 2.0, 1.0], [3.0, "nan", 2.0])):
        rows: list[dict[str, Any]] = [start_row(1, 0)]
        for step, loss in zip((10, 20, 30), losses, strict=True):
            rows += [train_row(step, 2.1), eval_row(step, loss)]
        write_run(tmp_path / f"{seed}", configure("muon", 0.1, seed), [rows])
    found = to_target(load(tmp_path), 2.25, cost=cost)
    per_step = {"step": 1, "tokens": TOKENS_PER_STEP, "seconds": 0.05}
    per_step["flops"] = TOKENS_PER_STEP * 6 * 130_000
    assert found["reached"].tolist() == pytest.approx([17.5 * per_step[cost], 30 * per_step[cost]])


def test_a_median_over_seeds_may_be_infinite() -> None:
    assert median_interval([10, 20, math.inf]).value == 20
    assert median_interval([10, math.inf]).value == math.inf
    found = median_interval([10, 20, 30, 40, math.inf])
    assert found == (30, 10, math.inf, True)
    assert str(found) == "30 (range 10 to inf)"
    six = median_interval([10, 20, 30, 40, 50, 60])
    assert not six.is_range
    assert "95 % interval" in str(six)
    assert median_interval([1, 2, 3]) == median_interval([1, 2, 3])
    for costs in ([], [1, math.nan]):
        with pytest.raises(ValueError, match="no NaN"):
            median_interval(costs)


@pytest.mark.parametrize("count", [6, 7, 8, 10, 15])
def test_intervals_hold_the_median_with_95_percent(count: int) -> None:
    rng = np.random.default_rng(count)
    draws = 2000
    for samples, median in (
        (rng.normal(size=(draws, count)), 0.0),
        (rng.exponential(size=(draws, count)), math.log(2)),
    ):
        found = [median_interval(row) for row in samples]
        share = np.mean([one.low <= median <= one.high for one in found])
        assert stats.binom.ppf(1e-4, draws, 0.95) / draws <= share
        assert not any(one.is_range for one in found)


def test_the_interval_is_that_of_the_sign_test() -> None:
    # for 15 values, Conover's table A3 gives the 4th and the 12th
    assert median_interval(range(1, 16)) == (8, 4, 12, False)
    for count in range(6, 40):
        found = median_interval(range(1, count + 1))
        p = stats.binomtest(int(found.low) - 1, count).pvalue  # were the median below all of it
        assert p <= 0.05
        assert stats.binomtest(int(found.low), count).pvalue > 0.05


@pytest.mark.parametrize("count", [3, 5])
def test_a_range_misses_the_median_only_where_all_values_lie_on_one_side(count: int) -> None:
    rng = np.random.default_rng(count)
    draws = 2000
    found = [median_interval(row) for row in rng.normal(size=(draws, count))]
    share = np.mean([one.low <= 0 <= one.high for one in found])
    expected = 1 - 0.5 ** (count - 1)  # 0.75 of three, which no interval of them exceeds
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], draws, expected) / draws
    assert low <= share <= high
    assert all(one.is_range for one in found)


COSTS = pd.DataFrame(
    {"adamw": [2.0, 9.0, math.inf], "muon": [1.0, 10.0, math.inf], "sgd": [8.0, math.inf, math.inf]}
)


def test_profiles_count_what_is_solved_within_a_multiple_of_the_best() -> None:
    assert ratios(COSTS)["muon"].tolist() == [1.0, pytest.approx(10 / 9), math.inf]
    found = performance_profile(COSTS, [1.0, 1.5, 2.0, 8.0])
    assert found["adamw"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert found["muon"].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert found["sgd"].tolist() == pytest.approx([0, 0, 0, 1 / 3])


def test_the_score_is_the_area_below_the_profile() -> None:
    taus = np.linspace(1, 4, 601)
    areas = performance_profile(COSTS, taus).mean()
    assert profile_score(COSTS).to_dict() == pytest.approx(areas.to_dict(), abs=5e-3)


def test_the_fit_recovers_a_power_law_it_was_made_of() -> None:
    law = PowerLaw(a=400.0, exponent=0.34, floor=1.7)
    data = np.geomspace(1e8, 1e10, 6)
    found = fit_power_law(data, [law.loss(d) for d in data])
    assert (found.exponent, found.floor) == pytest.approx((0.34, 1.7), rel=1e-4)
    assert found.data(law.loss(3e9)) == pytest.approx(3e9, rel=1e-4)


def test_the_fit_recovers_a_speed_up_from_noisy_seeds() -> None:
    rng = np.random.default_rng(2)
    law = PowerLaw(a=400.0, exponent=0.34, floor=1.7)
    data = np.repeat(np.geomspace(1e8, 1.6e9, 5), 4)
    found = []
    for _ in range(40):
        fit = fit_power_law(data, [law.loss(d) + rng.normal(0, 0.001) for d in data])
        found.append(speed_up(fit, 4e8, law.loss(1.4 * 4e8)))
    # dL/dlnD is 0.18 here, so a thousandth of loss is 0.6 % of data, and 20 runs tell it better.
    assert np.mean(found) == pytest.approx(1.4, rel=0.003)
    assert np.std(found) < 0.01


def test_the_speed_ups_of_a_published_table_come_out_again() -> None:
    # Wen et al. (2025), 130M on C4 at 1, 2, 4 and 8 times Chinchilla.
    adamw = fit_power_law([1, 2, 4, 8], [3.529, 3.409, 3.322, 3.262])
    muon = [3.464, 3.369, 3.296, 3.239]
    found = [speed_up(adamw, d, loss) for d, loss in zip([1, 2, 4, 8], muon, strict=True)]
    assert found == pytest.approx([1.41, 1.34, 1.32, 1.40], abs=0.005)


def test_what_no_power_law_describes_is_said() -> None:
    for data, losses in (([1, 2], [3, 2]), ([1, 2, 4], [3, 2, math.inf]), ([0, 1, 2], [3, 2, 1])):
        with pytest.raises(ValueError, match="three or more sizes"):
            fit_power_law(data, losses)
    with pytest.raises(ValueError, match="do not fall"):
        fit_power_law([1, 2, 4], [2.0, 2.5, 2.8])
    assert speed_up(PowerLaw(1.0, 0.5, 2.0), 1.0, 1.9) == math.inf


def test_a_line_in_logarithms_gives_its_exponent() -> None:
    assert fit_exponent([1, 2, 4], [0.4, 0.1, 0.025]) == pytest.approx((0.4, -2.0))
    with pytest.raises(ValueError, match="above 0"):
        fit_exponent([1, 2], [0.0, 1.0])
