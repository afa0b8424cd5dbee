"""A loader with the settings that a test does not care about, and what it read."""

import itertools
from dataclasses import replace

import torch

from gptopt.data.batch import Reading
from gptopt.data.loader import Loader

T = 8
READING = Reading("plain", None, (), None, vocab_size=2**32)


def loader(tokens, *, reading=READING, prefetch=0, **settings):
    common = {"context_length": T, "batch_size": 4, "seed": 0, "shuffle": True}
    placed = {"rank": 0, "world_size": 1, "device": torch.device("cpu")}
    return Loader(tokens, reading=reading, prefetch=prefetch, **common | placed | settings)


def reading(**changes):
    return replace(READING, **changes)


def starts(batch):
    """First token of each window: its place, where token i of the source is i."""
    return batch.inputs[:, 0].tolist()


def take(source_loader, samples):
    """Starts of the next ``samples`` windows of one loader."""
    batches = (starts(source_loader.next_batch()) for _ in itertools.count())
    return list(itertools.islice(itertools.chain.from_iterable(batches), samples))


def same(batch, other):
    """Whether two batches are equal in everything they hold."""
    for one, two in zip(batch, other, strict=True):
        if (one is None) != (two is None) or (one is not None and not torch.equal(one, two)):
            return False
    return True
