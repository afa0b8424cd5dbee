"""The order of windows: a permutation for every size, seed and epoch, the same everywhere."""

import hashlib

import numpy as np
import pytest

from gptopt.data.hashing import mix64
from gptopt.data.order import permute, windows_of


def test_mix64_gives_the_published_outputs_of_splitmix64():
    # SplitMix64 with seed 0 hashes the multiples of its golden-ratio constant; the first three
    # outputs are quoted by every implementation of it.
    states = np.array([0, 0x9E3779B97F4A7C15, 0x3C6EF372FE94F82A], dtype=np.uint64)
    assert [f"{value:x}" for value in mix64(states)] == [
        "e220a8397b1dcdaf",
        "6e789e6aa1b965f4",
        "6c45d188009454f",
    ]


def test_every_index_appears_once_for_every_size_up_to_300():
    for size in range(1, 301):
        permuted = permute(np.arange(size, dtype=np.uint64), size, seed=size, epoch=1)
        assert sorted(permuted.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2**31 - 1, 10**10, 10**10 + 19, 2**45])
def test_large_permutations_stay_inside_and_never_meet(size):
    first = np.arange(20_000, dtype=np.uint64)
    index = np.concatenate([first, size - 1 - first])
    permuted = permute(index, size, seed=3, epoch=0)
    assert permuted.max() < size
    assert len(np.unique(permuted)) == len(index)


def test_the_permutation_is_the_feistel_network_of_the_docstring():
    # Equation (2) again, in Python's unbounded integers and one index at a time.
    mask = 2**64 - 1

    def mix(value):
        value = (value + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & mask
        return value ^ value >> 31

    def once(index, a, b, keys):
        left, right = index // b, index % b
        for number, key in enumerate(keys):
            if number % 2 == 0:
                left = (left + mix(right ^ key)) % a
            else:
                right = (right + mix(left ^ key)) % b
        return left * b + right

    size, seed, epoch = 1000, 11, 5
    a, b = 32, 32  # 31^2 = 961 < 1000 <= 32^2
    digest = hashlib.sha512(f"gptopt order 1: {seed} {epoch}".encode()).digest()
    keys = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, 64, 8)]
    expected = []
    for index in range(size):
        permuted = once(index, a, b, keys)
        while permuted >= size:
            permuted = once(permuted, a, b, keys)
        expected.append(permuted)
    assert permute(np.arange(size, dtype=np.uint64), size, seed, epoch).tolist() == expected


def test_each_place_of_a_short_order_is_equally_likely():
    # 2,400 seeds, 4 windows: 600 expected per pair, standard deviation 21; five of them.
    counts = np.zeros((4, 4))
    index = np.arange(4, dtype=np.uint64)
    for seed in range(2400):
        counts[np.arange(4), permute(index, 4, seed, epoch=0)] += 1
    assert np.abs(counts - 600).max() < 5 * 21


def test_a_long_order_looks_like_a_random_one():
    size = 50_021
    order = windows_of(0, size, size, seed=1)
    # |i - P(i)| / n of a random permutation has mean 1/3 and standard deviation 1/sqrt(18).
    moved = np.abs(order - np.arange(size)) / size
    assert moved.mean() == pytest.approx(1 / 3, abs=4 / np.sqrt(18 * size))
    # Neighbours that stay neighbours are Poisson with mean 2.
    assert (np.abs(np.diff(order)) == 1).sum() < 12


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [windows_of(epoch * 500, 500, 500, seed) for seed in (0, 1) for epoch in (0, 1, 2)]
    for number, order in enumerate(orders):
        assert sorted(order.tolist()) == list(range(500))
        for other in orders[:number]:
            # Two random orders of 500 agree in one place on average.
            assert (order == other).sum() < 10


def test_any_piece_of_the_order_can_be_computed_alone():
    whole = windows_of(0, 100, 7, seed=2)
    for first in range(0, 90):
        assert (windows_of(first, 10, 7, seed=2) == whole[first : first + 10]).all()
