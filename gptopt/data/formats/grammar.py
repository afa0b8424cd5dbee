"""A seeded language of random words: the same bytes on every machine and Python, no licence.

``words`` different words of 2 to 9 letters, numbered from 0; word w belongs to class
w mod ``classes``. A class is followed by other classes with probabilities that fall as 1/k^2 in
an order of its own, and picks its words by Zipf's law, as 1/(w + 1). So there is something to
learn at every range: the letters, the words and their frequencies, the grammar of the classes.
Words are followed by a space, those of class 0 by a full stop and a line break. One byte is one
token.

All draws come from a counter hashed by ``mix64`` and are compared as integers; a shorter text is
the beginning of a longer one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from gptopt.config.types import Count, PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError, split_tail
from gptopt.data.hashing import fingerprint, mix64

ONE = 1 << 32
BLOCK = 1 << 14


def build(
    *,
    data_root: Path,
    seed: Count,
    tokens: PositiveInt,
    words: PositiveInt,
    classes: PositiveInt,
    val_split: PositiveInt | Share | None,
) -> Corpus:
    """Generates the text (about 0.2 s per MB); its tail of ``val_split`` is held out."""
    if classes > words:
        raise DataError(f"data.classes={classes}: at most data.words={words}, one word each.")
    text = np.frombuffer(generate(seed, tokens, words, classes), dtype=np.uint8)
    train, val = split_tail(text, val_split, "The grammar's text")
    content_hash = fingerprint([("train", train.tobytes()), ("val", val.tobytes())])
    return Corpus(train, val, content_hash, vocab_size=256, files={})


def generate(seed: int, tokens: int, words: int, classes: int) -> bytes:
    """The first ``tokens`` bytes of the language of (seed, words, classes)."""
    draws = _draws(seed)
    vocabulary = _vocabulary(draws, words)
    ends = [b".\n" if word % classes == 0 else b" " for word in range(words)]
    spoken = [letters + end for letters, end in zip(vocabulary, ends, strict=True)]
    members = [range(first, words, classes) for first in range(classes)]
    word_bounds = [_bounds([ONE // (word + 1) for word in group]) for group in members]
    falling = _bounds([ONE // k**2 for k in range(1, classes + 1)])
    followers = [_shuffled(draws, range(classes)) for _ in range(classes)]

    text = bytearray()
    now = 0
    while len(text) < tokens:
        now = followers[now][bisect_right(falling, next(draws))]
        text += spoken[members[now][bisect_right(word_bounds[now], next(draws))]]
    return bytes(text[:tokens])


def _draws(seed: int) -> Iterator[int]:
    """Endless integers, uniform in [0, 2^32)."""
    key = mix64(np.array([seed], dtype=np.uint64))
    counter = np.arange(BLOCK, dtype=np.uint64)
    while True:
        yield from (mix64(key ^ mix64(counter)) >> np.uint64(32)).tolist()
        counter += np.uint64(BLOCK)


def _vocabulary(draws: Iterator[int], words: int) -> list[bytes]:
    """Different words of 2 to 9 letters, all lengths and letters equally likely."""
    vocabulary: dict[bytes, None] = {}
    while len(vocabulary) < words:
        length = 2 + next(draws) % 8
        word = "".join(ascii_lowercase[next(draws) % 26] for _ in range(length))
        vocabulary[word.encode()] = None
    return list(vocabulary)


def _bounds(weights: Sequence[int]) -> list[int]:
    """Upper bounds, up to 2^32, of the draws that choose each item in proportion to its weight."""
    total = sum(weights)
    return [ONE * bound // total for bound in accumulate(weights)]


def _shuffled(draws: Iterator[int], items: Sequence[int]) -> list[int]:
    """Fisher-Yates."""
    shuffled = list(items)
    for last in range(len(shuffled) - 1, 0, -1):
        other = next(draws) % (last + 1)
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return shuffled
