"""What made-up tasks have in common: rows of tokens, one problem each, drawn as they are needed.

Everything is integer arithmetic on a hashed counter, so a task is the same tokens on every
machine, and a shorter one is the beginning of a longer one. ``best_loss`` counts, of every
problem, what cannot be known from the tokens before: no model comes below it. A window that
starts inside a problem knows less, so choose a context_length that is a multiple of the problem's
length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gptopt.data.corpus import Corpus
from gptopt.data.memory import corpus_of

ROWS = 1 << 14


def corpus_of_problems(
    problems: Callable[[int, int], np.ndarray],
    *,
    length: int,
    tokens: int,
    val_split: int | float,
    vocab_size: int,
    unknown: float,
) -> Corpus:
    """A corpus of problems one after the other; its tail is held out.

    Args:
        problems: (first, count) -> problems ``first`` ... as rows, (count, length).
        length: Tokens of a problem.
        tokens: Of the corpus; the last problem may be cut.
        val_split: As in ``split_tail``.
        vocab_size: Ids are below it.
        unknown: Nats in a problem that nothing before it tells.
    """
    dtype = np.min_scalar_type(vocab_size - 1)
    count = -(-tokens // length)
    rows = [
        problems(first, min(ROWS, count - first)).astype(dtype) for first in range(0, count, ROWS)
    ]
    ids = np.concatenate(rows).reshape(-1)[:tokens]
    corpus = corpus_of(ids, val_split, "The task", vocab_size, {})
    return replace(corpus, best_loss=unknown / length)
