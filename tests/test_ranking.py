"""Means of settings that were run with unequal seeds."""

from __future__ import annotations

import math

import pytest
from scipy import optimize

from gptopt.ranking import caveat, comparable_means


def test_with_equal_seeds_they_are_the_plain_means() -> None:
    settings = [{0: 2.0, 1: 4.0}, {1: 3.5, 0: 2.1}]
    assert comparable_means(settings) == [3.0, 2.8]
    assert caveat(settings, 1) == ""


def test_two_settings_are_compared_over_the_seeds_that_both_have() -> None:
    a, b = comparable_means([{0: 2.0, 1: 2.2, 2: 9.0}, {0: 2.3, 1: 2.4, 3: 0.1}])
    assert a - b == pytest.approx((2.0 + 2.2) / 2 - (2.3 + 2.4) / 2)


def test_they_are_what_least_squares_finds() -> None:
    settings = [{0: 2.6, 1: 2.9, 2: 2.4}, {0: 2.5, 1: 3.1}, {1: 2.7, 2: 2.5}, {2: 2.2, 3: 2.0}]

    def residuals(x: list[float]) -> list[float]:
        setting, seed = x[:4], x[4:]
        return [
            loss - setting[i] - seed[s]
            for i, losses in enumerate(settings)
            for s, loss in losses.items()
        ]

    fitted = optimize.least_squares(residuals, [0.0] * 8, xtol=1e-14, ftol=1e-14).x
    found = comparable_means(settings)
    # what is common to all settings may as well be the seeds' part
    assert [mean - found[0] for mean in found] == pytest.approx(fitted[:4] - fitted[0], abs=1e-6)


def test_a_lucky_seed_alone_is_no_better_than_others_on_it() -> None:
    settings = [{0: 2.50, 1: 2.65, 2: 2.65}, {0: 2.51, 1: 2.53, 2: 2.52}, {0: 2.515}]
    means = comparable_means(settings)
    assert min(range(3), key=means.__getitem__) == 1
    assert caveat(settings, 1) == (
        "its settings have 1 to 3 seeds and were compared over the seeds they share;"
        " a lower mean, 2.5150 of 1, was passed over"
    )


def test_seeds_that_connect_nothing_leave_the_plain_means() -> None:
    settings = [{0: 2.0, 1: 3.0}, {2: 2.6, 3: 2.8}]
    assert comparable_means(settings) == [2.5, pytest.approx(2.7)]
    assert caveat(settings, 0) == (
        "its settings have unlike seeds, 2 each and were compared by plain means"
    )


def test_a_diverged_seed_makes_a_setting_the_worst_and_lends_nothing_to_others() -> None:
    settings = [{0: 1.0, 1: math.inf}, {0: 2.0, 1: 2.2}, {0: 2.1}]
    first, second, third = comparable_means(settings)
    assert first == math.inf
    assert third - second == pytest.approx(0.1)
