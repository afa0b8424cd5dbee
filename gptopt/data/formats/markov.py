"""A Markov chain whose entropy is known: the next symbol depends on the last ``order`` ones.

Every context has the same probabilities, q_k in proportion to 1 / k^``exponent`` for k = 1 ...
``symbols``, but gives them to the symbols in a random order of its own. So there is a table of
symbols^order orders to be learnt, and a model that has learnt it loses, whatever the context,

    H = -sum_k q_k ln(q_k)   nats per token.

The first order - 1 predictions of a window know less than a whole context.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from math import log
from pathlib import Path

import numpy as np

from gptopt.config.types import Count, PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.hashing import draws, permutations
from gptopt.data.memory import corpus_of

ONE = 1 << 32
CONTEXTS = 1 << 20
BLOCK = 1 << 16


def build(
    *,
    data_root: Path,
    seed: Count,
    tokens: PositiveInt,
    symbols: PositiveInt,
    order: PositiveInt,
    exponent: Count,
    val_split: PositiveInt | Share,
) -> Corpus:
    """Walks through the chain (about 0.3 s per million tokens)."""
    contexts = symbols**order
    if contexts * symbols > CONTEXTS * 16:
        raise DataError(
            f"data.symbols={symbols}, data.order={order}: {contexts} contexts of {symbols} symbols "
            "are a table that is too large to be learnt. Lower one of them."
        )
    weights = [ONE // k**exponent for k in range(1, symbols + 1)]
    bounds = [ONE * bound // sum(weights) for bound in accumulate(weights)]
    orders = permutations(seed, 0, 0, contexts, symbols).tolist()
    ids = np.empty(tokens, dtype=np.min_scalar_type(symbols - 1))
    context = 0
    for first in range(0, tokens, BLOCK):
        walk = []
        for draw in draws(seed, 1, first, min(BLOCK, tokens - first), ONE).tolist():
            symbol = orders[context][bisect_right(bounds, draw)]
            context = (context * symbols + symbol) % contexts
            walk.append(symbol)
        ids[first : first + len(walk)] = walk
    corpus = corpus_of(ids, val_split, "The chain", symbols, {})
    shares = np.diff([0, *bounds]) / ONE
    entropy = -sum(share * log(share) for share in shares.tolist() if share)
    return replace(corpus, best_loss=entropy)
