"""Copying: a start sign, ``length`` random symbols, a stop sign, the same symbols again.

    S  a b c d  |  a b c d    with symbols 0 ... symbols - 1, | = symbols, S = symbols + 1

A problem has 2 length + 2 tokens. Only the first copy is unknown: at best

    length ln(symbols) / (2 length + 2)   nats per token.
"""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np

from gptopt.config.types import Count, PositiveInt, Share
from gptopt.data.corpus import Corpus
from gptopt.data.hashing import draws
from gptopt.data.tasks import corpus_of_problems


def build(
    *,
    data_root: Path,
    seed: Count,
    tokens: PositiveInt,
    symbols: PositiveInt,
    length: PositiveInt,
    val_split: PositiveInt | Share,
) -> Corpus:
    """Draws the problems."""

    def problems(first: int, count: int) -> np.ndarray:
        drawn = draws(seed, 0, first * length, count * length, symbols).reshape(count, length)
        stop, start = np.full((count, 1), symbols), np.full((count, 1), symbols + 1)
        return np.hstack([start, drawn, stop, drawn])

    return corpus_of_problems(
        problems,
        length=2 * length + 2,
        tokens=tokens,
        val_split=val_split,
        vocab_size=symbols + 2,
        unknown=length * log(symbols),
    )
