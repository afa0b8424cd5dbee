"""Wherever a run stops and whoever goes on, the windows are those of the run that did not stop."""

import itertools

import numpy as np
import pytest

from gptopt.data.corpus import Mixture, Part
from gptopt.data.shards import Shards, open_shard

from .loading import T, loader, same, starts, take

LENGTHS = (100, 3, 400)


def shards(directory, base=0):
    """503 tokens, base + 0, base + 1, ..., in three files of 100, 3 and 400: 62 windows."""
    directory.mkdir()
    tokens, made = np.arange(base, base + sum(LENGTHS), dtype="<u2"), []
    for number, part in enumerate(np.split(tokens, np.cumsum(LENGTHS)[:-1])):
        path = directory / f"train_{number}.bin"
        part.tofile(path)
        made.append(open_shard(path, "uint16"))
    return Shards(made)


@pytest.fixture(params=["one source", "weighted", "sequential"])
def tokens(request, tmp_path):
    if request.param == "one source":
        return shards(tmp_path / "a")
    parts = Part("a", shards(tmp_path / "a"), 3.0), Part("b", shards(tmp_path / "b", 10_000), 1.0)
    return Mixture(parts, request.param)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resume_at_every_batch_goes_on_to_the_token(tokens, prefetch):
    states, batches = [], []
    with loader(tokens, batch_size=5, prefetch=prefetch) as uninterrupted:
        for _ in range(60):  # 300 samples: several epochs of one source and of the mixture
            states.append(uninterrupted.state_dict())
            batches.append(uninterrupted.next_batch())
    for number in range(0, 60):
        with loader(tokens, batch_size=5, prefetch=prefetch) as resumed:
            resumed.load_state_dict(states[number])
            for expected in batches[number : number + 3]:
                assert same(resumed.next_batch(), expected)


@pytest.mark.parametrize("prefetch", [0, 1])
def test_world_size_and_batch_size_may_change_at_every_stop(tokens, prefetch):
    expected = take(loader(tokens, batch_size=1), 700)
    seen, position = [], {"samples": 0}
    plan = itertools.cycle([(1, 8), (2, 6), (4, 3), (1, 5), (4, 1), (3, 7)])
    while len(seen) < 600:
        world_size, batch_size = next(plan)
        settings = {"batch_size": batch_size, "world_size": world_size, "prefetch": prefetch}
        ranks = [loader(tokens, rank=rank, **settings) for rank in range(world_size)]
        for rank in ranks:
            rank.load_state_dict(position)
        for _ in range(2):
            for rank in ranks:
                seen += starts(rank.next_batch())
        position = ranks[0].state_dict()
        assert all(rank.state_dict() == position for rank in ranks)
        for rank in ranks:
            rank.close()
    assert seen == expected[: len(seen)]


def test_what_was_made_ahead_is_not_counted_as_read(tokens):
    with loader(tokens, prefetch=5, batch_size=3) as ahead:
        ahead.next_batch()
        assert ahead.state_dict() == {"samples": 3}


def test_each_rank_reads_its_own_windows_and_no_others(tmp_path, monkeypatch):
    tokens, read = shards(tmp_path / "a"), []
    fill_rows = Shards.fill_rows

    def spy(source, places, rows):
        read.extend(places.tolist())
        fill_rows(source, places, rows)

    monkeypatch.setattr(Shards, "fill_rows", spy)
    of_rank = {}
    for rank in range(3):
        read.clear()
        take(loader(tokens, rank=rank, world_size=3, batch_size=2, prefetch=0), 10)
        of_rank[rank] = set(read)
    assert all(len(of_rank[rank]) == 10 for rank in range(3))
    assert len(set.union(*of_rank.values())) == 30


def test_a_resume_far_into_a_run_starts_at_once(tokens):
    # 10^9 samples are read by index, not by counting up to them.
    late = loader(tokens)
    late.load_state_dict({"samples": 10**9})
    first = take(late, 8)
    again = loader(tokens, batch_size=8)
    again.load_state_dict({"samples": 10**9})
    assert starts(again.next_batch()) == first


def test_no_epoch_repeats_the_order_of_another_after_a_resume(tokens):
    one = loader(tokens)
    epochs = []
    for epoch in range(4):
        resumed = loader(tokens)
        resumed.load_state_dict({"samples": epoch * one.windows})
        epochs.append(tuple(take(resumed, one.windows)))
    assert len(set(epochs)) == 4


def test_windows_start_at_multiples_of_the_context_across_shards(tokens):
    assert all(start % 10_000 % T == 0 for start in take(loader(tokens), 62))
