"""Associative recall: pairs of a key and its value, then every key again, to be answered.

    k1 v1 k2 v2 ... kN vN   k3 v3 k1 v1 ...

with keys 0 ... keys - 1 and values keys ... keys + values - 1.

A problem has N = ``pairs`` different keys with values of their own, and asks for all of them in
another order: 4 N tokens (after Arora et al., 2023, "Zoology"). Unknown are the keys, their
values and the order of the questions, never an answer: at best

    (ln(keys! / (keys - N)!) + N ln(values) + ln(N!)) / (4 N)   nats per token.
"""

from __future__ import annotations

from math import lgamma, log
from pathlib import Path

import numpy as np

from gptopt.config.types import Count, PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.hashing import draws, permutations
from gptopt.data.tasks import corpus_of_problems


def build(
    *,
    data_root: Path,
    seed: Count,
    tokens: PositiveInt,
    keys: PositiveInt,
    values: PositiveInt,
    pairs: PositiveInt,
    val_split: PositiveInt | Share,
) -> Corpus:
    """Draws the problems."""
    if pairs > keys:
        raise DataError(f"data.pairs={pairs}: at most data.keys={keys}, a key of its own each.")

    def problems(first: int, count: int) -> np.ndarray:
        chosen = permutations(seed, 0, first, count, keys)[:, :pairs]
        answers = keys + draws(seed, 1, first * pairs, count * pairs, values).reshape(count, pairs)
        asked = permutations(seed, 2, first, count, pairs)
        told = np.stack([chosen, answers], axis=2)
        again = np.take_along_axis(told, asked[:, :, None], axis=1)
        return np.hstack([told, again]).reshape(count, 4 * pairs)

    unknown = lgamma(keys + 1) - lgamma(keys - pairs + 1) + pairs * log(values) + lgamma(pairs + 1)
    return corpus_of_problems(
        problems,
        length=4 * pairs,
        tokens=tokens,
        val_split=val_split,
        vocab_size=keys + values,
        unknown=unknown,
    )
