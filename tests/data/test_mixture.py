"""Mixtures: shares exact to the window, every window once, the same wherever one starts."""

from fractions import Fraction

import numpy as np
import pytest

from gptopt.config.data_rules import whole_shares
from gptopt.data.corpus import DataError, Mixture, Part
from gptopt.data.mixture import MixedOrder, interleave

from .loading import T, loader, take

WEIGHTS = [
    [1],
    [1, 1],
    [0.7, 0.2, 0.1],
    [0.5, 0.49, 0.01],
    [0.9, *[0.01] * 10],
    [5, 3, 2, 1, 1, 1],
    [627, 30.5, 267],
    [1] * 17,
]


def counting(*lengths):
    """Sources of such many windows; all their tokens differ, so a start tells source and window."""
    parts, base = [], 0
    for number, windows in enumerate(lengths):
        tokens = np.arange(base, base + windows * T + 1, dtype=np.uint32)
        parts.append((f"part{number}", tokens))
        base += 1_000_000
    return parts


def mixture(parts, weights, mix="weighted"):
    return Mixture(tuple(Part(*part, w) for part, w in zip(parts, weights, strict=True)), mix)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_after_any_number_of_windows_each_source_is_within_one_window_of_its_share(weights):
    order = MixedOrder([100] * len(weights), weights, "weighted")
    numbers, _ = order.locate(np.arange(10_000))
    read = np.cumsum(numbers[:, None] == np.arange(len(weights)), axis=0)
    exact = [Fraction(str(weight)) for weight in weights]
    after = np.arange(1, 10_001)
    for number, weight in enumerate(exact):
        share = after * float(weight / sum(exact))
        assert np.abs(read[:, number] - share).max() < 1


def test_the_first_places_are_those_found_by_hand():
    # Shares 2:1. Place 1: both may start; deadlines ceil(3/2) = 2 and ceil(3/1) = 3: source 0.
    # Place 2: the second of source 0 may start at floor(3/2) + 1 = 2, deadline 3; source 1 has
    # deadline 3, too, and comes later in the list: source 0. Place 3: source 1.
    assert interleave([2, 1]).tolist() == [0, 0, 1]


@pytest.mark.parametrize("mix", ["weighted", "sequential"])
def test_a_sample_at_ten_to_the_nine_is_located_alone_as_in_a_row(mix):
    order = MixedOrder([30, 11, 5], [0.6, 0.3, 0.1], mix)
    around = np.arange(10**9 - 50, 10**9 + 50)
    numbers, before = order.locate(around)
    for sample in around.tolist():
        number, count = order.locate(np.array([sample]))
        assert (number[0], count[0]) == (numbers[sample - around[0]], before[sample - around[0]])
    assert (order.counts(10**9) - np.array(order.counts(10**9 - 50))).sum() == 50


@pytest.mark.parametrize("mix", ["weighted", "sequential"])
def test_the_position_in_each_source_is_the_count_so_far(mix):
    order = MixedOrder([30, 11, 5], [0.6, 0.3, 0.1], mix)
    seen = [0, 0, 0]
    for sample in range(500):
        (number,), (before,) = order.locate(np.array([sample]))
        assert before == seen[number]
        assert order.counts(sample) == seen
        seen[number] += 1


def test_sequential_reads_one_source_after_the_other_each_once_an_epoch():
    one = loader(mixture(counting(5, 9, 3), [1, 1, 1], "sequential"), batch_size=17)
    for _ in range(3):
        epoch = np.array(take(one, 17))
        assert (epoch // 1_000_000).tolist() == [0] * 5 + [1] * 9 + [2] * 3
        assert len(set(epoch.tolist())) == 17


def test_a_source_reads_each_of_its_windows_once_before_any_twice():
    read = take(loader(mixture(counting(6, 40), [3, 1])), 400)
    first = [start for start in read if start < 1_000_000]
    assert len(first) == 300  # three quarters: ratios count, also when a source is read often
    epochs = [first[at : at + 6] for at in range(0, 300, 6)]
    assert all(sorted(epoch) == [T * window for window in range(6)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 30  # another order in every epoch


def test_adding_a_source_leaves_the_order_within_the_others():
    parts = counting(50, 60, 70)
    two = take(loader(mixture(parts[:2], [1, 1])), 40)
    three = take(loader(mixture(parts, [1, 1, 2])), 80)
    for number in range(2):
        inside = [start for start in two if start // 1_000_000 == number]
        assert [start for start in three if start // 1_000_000 == number] == inside


def test_sources_of_equal_length_do_not_share_an_order():
    read = np.array(take(loader(mixture(counting(60, 60), [1, 1])), 120))
    first, second = (read[read // 1_000_000 == number] % 1_000_000 for number in range(2))
    assert sorted(first) == sorted(second)
    assert not np.array_equal(first, second)


def test_sources_of_different_types_are_read_together():
    narrow = Part("bytes", np.arange(17, dtype=np.uint8), 1)
    wide = Part("words", np.arange(70_000, 70_017, dtype=np.uint32), 1)
    batch = loader(Mixture((narrow, wide), "weighted"), batch_size=4).next_batch()
    assert sorted(batch.inputs[:, 0].tolist()) == [0, 8, 70_000, 70_008]
    assert (batch.targets == batch.inputs + 1).all()


def test_one_part_alone_is_read_as_the_source_itself():
    ((label, tokens),) = counting(62)
    alone = Mixture((Part("", tokens, 5),), "weighted")
    assert take(loader(alone), 200) == take(loader(tokens), 200)
    assert loader(alone).order_fingerprint() == loader(tokens).order_fingerprint()


def test_the_order_fingerprint_covers_weights_mix_and_labels():
    parts = counting(20, 30)
    prints = [
        loader(mixture(parts, [1, 1])).order_fingerprint(),
        loader(mixture(parts, [2, 1])).order_fingerprint(),
        loader(mixture(parts, [2, 1], "sequential")).order_fingerprint(),
        loader(mixture([("x", parts[0][1]), parts[1]], [1, 1])).order_fingerprint(),
    ]
    assert len(set(prints)) == 4
    assert prints[0] == loader(mixture(parts, [0.5, 0.5]), batch_size=9).order_fingerprint()


def test_weights_become_the_smallest_whole_shares():
    assert whole_shares([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert whole_shares([3, 1.5]) == [2, 1]
    assert whole_shares([1e-3, 2]) == [1, 2000]


def test_weights_with_too_many_digits_are_refused_and_not_rounded():
    with pytest.raises(ValueError, match=r"weights 0.333333, 0.6667 .* fewer digits"):
        whole_shares([0.333333, 0.6667])


def test_a_source_shorter_than_a_window_is_named():
    with pytest.raises(DataError, match="part1: 1 tokens; context_length=8 takes at least 9"):
        loader(mixture(counting(5, 0), [1, 1]))
