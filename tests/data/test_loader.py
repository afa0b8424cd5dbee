"""Batches: what they hold, in which order, and that a resume goes on to the token."""

import tracemalloc

import numpy as np
import pytest
import torch

from gptopt.data.corpus import DataError
from gptopt.data.loader import eval_windows
from gptopt.data.shards import Shards, open_shard

from .loading import READING, T, loader, same, starts, take


@pytest.fixture
def counting():
    """503 tokens, token i is i: (503 - 1) // 8 = 62 windows."""
    return np.arange(503, dtype=np.uint16)


@pytest.fixture
def three_shards(tmp_path):
    """The same 503 tokens in shards of 100, 3 and 400 tokens."""
    tokens = np.arange(503, dtype="<u2")
    shards = []
    for number, part in enumerate(np.split(tokens, [100, 103])):
        path = tmp_path / f"train_{number}.bin"
        part.tofile(path)
        shards.append(open_shard(path, "uint16"))
    return Shards(shards)


def test_targets_are_the_inputs_one_token_later(counting):
    x_BT, y_BT, *_ = loader(counting).next_batch()
    assert x_BT.shape == y_BT.shape == (4, T)
    assert x_BT.dtype == y_BT.dtype == torch.int64
    assert torch.equal(y_BT, x_BT + 1)
    assert (x_BT[:, 0] % T == 0).all()


def test_an_epoch_predicts_every_token_once(counting):
    batches = loader(counting, batch_size=31)
    targets = torch.cat([batches.next_batch().targets.flatten() for _ in range(2)])
    assert sorted(targets.tolist()) == list(range(1, 62 * T + 1))


def test_without_shuffling_windows_come_in_order_and_start_again(counting):
    assert take(loader(counting, shuffle=False), 124) == [*range(0, 62 * T, T)] * 2


def test_the_next_batch_leaves_the_last_one_alone(counting):
    batches = loader(counting)
    x_BT = batches.next_batch().inputs
    before = x_BT.clone()
    batches.next_batch()
    assert torch.equal(x_BT, before)


def test_shards_of_unequal_length_read_as_one_sequence(counting, three_shards):
    assert take(loader(three_shards), 200) == take(loader(counting), 200)
    assert (three_shards[90:110] == np.arange(90, 110)).all()


def test_a_resume_at_every_batch_of_three_epochs_equals_not_stopping(three_shards):
    uninterrupted = loader(three_shards, batch_size=5)
    states, batches = [], []
    for _ in range(40):  # 200 samples, 62 windows per epoch
        states.append(uninterrupted.state_dict())
        batches.append(uninterrupted.next_batch())
    for number, state in enumerate(states):
        resumed = loader(three_shards, batch_size=5)
        resumed.load_state_dict(state)
        for expected in batches[number : number + 14]:  # past the end of an epoch
            assert same(resumed.next_batch(), expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_read_the_order_of_one(counting, world_size):
    ranks = [
        loader(counting, batch_size=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    together = [start for _ in range(20) for rank in ranks for start in starts(rank.next_batch())]
    assert together == take(loader(counting, batch_size=1), len(together))
    assert {rank.state_dict()["samples"] for rank in ranks} == {60 * world_size}


def test_batch_size_and_world_size_may_change_on_resume(counting):
    expected = take(loader(counting), 8 + 12 + 12 + 5)
    seen, position = [], {"samples": 0}
    for world_size, batch_size in [(1, 8), (2, 6), (4, 3), (1, 5)]:
        ranks = [
            loader(counting, batch_size=batch_size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for rank in ranks:
            rank.load_state_dict(position)
            seen += starts(rank.next_batch())
        position = ranks[0].state_dict()
    assert seen == expected


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_used_loader_goes_back_to_an_earlier_position(counting, prefetch):
    with loader(counting, prefetch=prefetch) as one:
        take(one, 20)
        later = one.state_dict()
        expected = take(one, 40)
        take(one, 100)
        one.load_state_dict(later)
        assert take(one, 40) == expected


def test_the_order_depends_on_seed_and_epoch(counting):
    one = loader(counting)
    first, second = take(one, 62), take(loader(counting), 124)[62:]
    other = take(loader(counting, seed=1), 62)
    assert sorted(first) == sorted(second) == sorted(other)
    assert len({tuple(order) for order in (first, second, other)}) == 3


def test_epoch_counts_from_the_position(counting):
    one = loader(counting, batch_size=31)
    epochs = []
    for _ in range(5):
        epochs.append(one.epoch)
        one.next_batch()
    assert epochs == [0, 0, 1, 1, 2]


def test_the_order_fingerprint_tells_orders_apart_and_nothing_else(counting):
    here = loader(counting).order_fingerprint()
    assert loader(counting, batch_size=9, rank=1, world_size=2).order_fingerprint() == here
    others = [
        loader(counting, seed=1),
        loader(counting, shuffle=False),
        loader(counting[:-T]),
        loader(counting, context_length=4),
    ]
    assert len({here, *(other.order_fingerprint() for other in others)}) == 5


def test_a_hundred_seeds_have_a_hundred_order_fingerprints(counting):
    # There are 62 windows, so the first one alone could not tell them apart.
    assert len({loader(counting, seed=seed).order_fingerprint() for seed in range(100)}) == 100


def test_a_source_shorter_than_a_window_is_refused_with_the_numbers():
    with pytest.raises(DataError, match="8 tokens; context_length=8 takes at least 9"):
        loader(np.arange(T, dtype=np.uint8))


def test_memory_does_not_grow_with_the_corpus():
    class TenBillion:
        dtype = np.dtype(np.uint16)

        def __len__(self):
            return 10**10

        def __getitem__(self, window):
            return np.zeros(window.stop - window.start, dtype=np.uint16)

    tracemalloc.start()
    loader(TenBillion(), context_length=64).next_batch()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def evaluation(source, *, tokens, batch_size=4, rank=0, world_size=1):
    windows = eval_windows(
        source,
        context_length=T,
        tokens=tokens,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        reading=READING,
    )
    return [made.to(torch.device("cpu")) for made in windows]


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 100, 502, None])
@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_an_evaluation_predicts_exactly_the_first_tokens(counting, tokens, batch_size):
    batches = evaluation(counting, tokens=tokens, batch_size=batch_size)
    inputs = torch.cat([x_BT.flatten() for x_BT, *_ in batches]).tolist()
    targets = torch.cat([y_BT.flatten() for _, y_BT, *_ in batches]).tolist()
    assert inputs == list(range(tokens or 502))
    assert targets == list(range(1, (tokens or 502) + 1))
    assert all(len(x_BT) <= batch_size for x_BT, *_ in batches)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_the_windows_of_an_evaluation(counting, world_size):
    def rows(rank, world_size):
        batches = evaluation(counting, tokens=99, rank=rank, world_size=world_size)
        return [tuple(row) for x_BT, *_ in batches for row in x_BT.tolist()]

    shared = [row for rank in range(world_size) for row in rows(rank, world_size)]
    assert sorted(shared) == sorted(rows(0, 1))
