"""The thread that makes batches ahead: in order, bounded, and gone when it should be."""

import itertools
import os
import threading
import time

import numpy as np
import pytest

from gptopt.data.corpus import DataError
from gptopt.data.prefetch import Prefetch
from gptopt.data.shards import Shards, open_shard

from .loading import loader, same

COUNTING = np.arange(503, dtype=np.uint16)


def threads():
    return [t for t in threading.enumerate() if t.name == "gptopt-prefetch"]


def test_batches_are_those_made_without_a_thread():
    plain = loader(COUNTING)
    for depth in (1, 2, 7):
        with loader(COUNTING, prefetch=depth) as ahead:
            plain.load_state_dict({"samples": 0})
            assert all(same(ahead.next_batch(), plain.next_batch()) for _ in range(50))


def test_it_makes_no_more_than_it_was_asked_for():
    made = []

    def produce():
        for number in itertools.count():
            made.append(number)
            yield number

    ahead = Prefetch(produce, depth=3)
    assert ahead.get() == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1, 2, 3, 4]  # one taken, three waiting, one in hand
    ahead.close()
    assert made == [0, 1, 2, 3, 4]


def test_leaving_the_loader_ends_the_thread_full_or_empty():
    for batches in (0, 1, 9):
        with loader(COUNTING, prefetch=2) as ahead:
            for _ in range(batches):
                ahead.next_batch()
            assert len(threads()) == (1 if batches else 0)
        assert threads() == []


def test_an_error_in_the_thread_is_raised_where_the_batch_is_missed(tmp_path):
    path = tmp_path / "a.bin"
    COUNTING.astype("<u2").tofile(path)
    source = Shards([open_shard(path, "uint16")])
    with loader(source, shuffle=False, prefetch=2) as ahead:
        os.truncate(path, 100)  # 50 tokens: batches of 4 x 8 tokens fail from the second on
        ahead.next_batch()
        position = ahead.state_dict()
        with pytest.raises(DataError, match=r"a.bin: ends at byte 100; it had 503 tokens"):
            ahead.next_batch()
        assert ahead.state_dict() == position
        with pytest.raises(DataError):  # nor does it hang the second time
            ahead.next_batch()
    assert threads() == []


def test_errors_that_are_no_exceptions_come_through_as_well():
    def produce():
        yield 1
        raise KeyboardInterrupt

    ahead = Prefetch(produce, depth=2)
    assert ahead.get() == 1
    with pytest.raises(KeyboardInterrupt):
        ahead.get()
    ahead.close()
