"""Made values: spaced ones against numpy, Halton's sequence against scipy and its laws."""

import itertools
import math

import numpy
import pytest
from scipy.stats import qmc

from gptopt.sweep.generators import Interval, halton, sample_of, spaced, star


def test_spaced_values_are_those_of_numpy_to_six_digits():
    for lo, hi, n in [(1e-4, 1e-2, 5), (5e-4, 8e-3, 5), (3e-3, 0.1, 4), (1e-300, 1e300, 9)]:
        assert spaced("log", [lo, hi, n]) == pytest.approx(numpy.geomspace(lo, hi, n), rel=5e-6)
    for lo, hi, n in [(0, 1, 11), (-2.5, 7, 20), (-1e307, 1e307, 3)]:
        assert spaced("lin", [lo, hi, n]) == pytest.approx(numpy.linspace(lo, hi, n), rel=5e-6)


def test_spaced_values_read_as_one_would_type_them():
    assert spaced("log", [1e-4, 1e-2, 5]) == [0.0001, 0.000316228, 0.001, 0.00316228, 0.01]
    assert spaced("lin", [0, 1, 4]) == [0, 0.333333, 0.666667, 1]


def test_the_ends_are_kept_to_the_last_digit_and_two_values_are_the_ends():
    assert spaced("log", [0.12345678, 1.23456789, 2]) == [0.12345678, 1.23456789]
    assert spaced("lin", [1234567, 7654321, 2]) == [1234567, 7654321]


def test_whole_ends_give_whole_numbers_where_the_values_are_whole():
    # A batch size has to be an int for JSON and for the config.
    values = spaced("log", [16, 128, 4])
    assert values == [16, 32, 64, 128]
    assert all(isinstance(value, int) for value in values)
    assert isinstance(spaced("lin", [0.0, 2.0, 3])[1], float)


def test_halton_without_a_seed_is_the_sequence_of_scipy():
    ours = list(itertools.islice(halton(7, None), 200))
    theirs = qmc.Halton(d=7, scramble=False).random(201)[1:]
    assert numpy.allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_halton_fills_equal_parts_of_every_dimension_equally(seed):
    rows = list(itertools.islice(halton(4, seed), 500))
    for dimension, base in enumerate([2, 3, 5, 7]):
        parts = base**2
        for start in (0, 13, 100):
            block = [row[dimension] for row in rows[start : start + parts]]
            # 1e-9: 5/9 may fall a rounding error below itself
            assert sorted(int(share * parts + 1e-9) for share in block) == list(range(parts))


def test_halton_is_deterministic_and_its_seed_changes_it():
    def first(seed):
        return list(itertools.islice(halton(5, seed), 50))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(None) != first(0)


def test_a_seed_parts_dimensions_that_rise_together():
    # Bases 17 and 19 count up side by side for their first 16 points: correlation 1.
    def correlation(seed):
        rows = numpy.array(list(itertools.islice(halton(8, seed), 16)))
        return numpy.corrcoef(rows[:, 6], rows[:, 7])[0, 1]

    assert correlation(None) == pytest.approx(1)
    assert all(abs(correlation(seed)) < 0.9 for seed in range(5))


def test_random_draws_are_uniform_in_the_logarithm():
    sample = sample_of({"n": 10_000, "method": "random", "seed": 1})
    (drawn,) = zip(
        *(row.values() for row in sample.draw([Interval(("x",), 1e-4, 1.0, True)])), strict=True
    )
    assert all(1e-4 <= value <= 1 for value in drawn)
    # A quarter of the draws in each decade: 2,500 +- 43 (one standard deviation), here 5 of them.
    decades = numpy.bincount([min(3, int(math.log10(value) + 4)) for value in drawn])
    assert all(abs(count - 2500) < 220 for count in decades)


def test_an_interval_is_cut_by_the_share_below():
    assert Interval(("x", "y"), 1.0, 100.0, True).at(0.5) == {"x": 10.0, "y": 10.0}
    assert Interval(("x",), -1.0, 3.0, False).at(0.75) == {"x": 2.0}
    assert Interval(("x",), 0.123456789, 1.0, False).at(0.0) == {"x": 0.123457}
    # Rounding to six digits does not lead out of the interval.
    assert Interval(("x",), 0.1234564, 1.0, False).at(0.0) == {"x": 0.1234564}


def test_every_choice_of_a_list_is_as_likely():
    drawn = sample_of(30).draw([[{"x": 0}, {"x": 1}], [{"y": letter} for letter in "abc"]])
    assert len(drawn) == 30
    # 30 points in a row hold each of the 2 x 3 boxes five times: 6 divides 30.
    assert {
        box: [row["x"] == box[0] and row["y"] == box[1] for row in drawn].count(True)
        for box in itertools.product([0, 1], "abc")
    } == dict.fromkeys(itertools.product([0, 1], "abc"), 5)


def test_a_star_has_its_centre_first_and_one_change_at_a_time():
    points = star({"x": 0, "y": False}, [[{"x": 0.0}, {"x": 1}], [{"y": 0}, {"y": False}]])
    assert points == [{"x": 0, "y": False}, {"x": 1, "y": False}, {"x": 0, "y": 0}]
    assert [type(point["y"]) for point in points] == [bool, bool, int]
