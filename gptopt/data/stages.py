"""Stages of ``data=pipeline``: what happens to documents on their way to tokens.

Each public function here is a stage, in the order in which they may follow one another; its
keyword-only parameters are the keys of its entry in ``data.stages``. What comes after them is the
same for every corpus: the loader packs all pieces end to end and cuts windows of context_length,
batch_size of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptopt.config.types import PositiveInt
from gptopt.data.texts import Span, TextOptions, read
from gptopt.data.tokenizers import load_tokenizer


class Piece(NamedTuple):
    """Ids, shape (n,); those with ``starts`` false go on with the document before them."""

    ids: np.ndarray
    starts: bool


@dataclass(frozen=True)
class Flow:
    """What the stages so far have made of a corpus.

    Attributes:
        data_root: Where vocabularies lie.
        texts: What documents are.
        pieces: The pieces of some spans of files; always the same for the same files.
        vocab_size: Every id is below it.
        vocabulary: sha256 (hex) of the vocabulary.
        buffer: Tokens among which windows are shuffled; 0: they are read as they stand.
    """

    data_root: Path
    texts: TextOptions
    pieces: Callable[[Sequence[Span]], Iterator[Piece]] = lambda _: iter(())
    vocab_size: int = 0
    vocabulary: str = ""
    buffer: int = 0


def tokenize(flow: Flow, *, tokenizer: str, allow_pickle: bool) -> Flow:
    """Texts to ids; each document begins with the tokenizer's end-of-text token."""
    encoder = load_tokenizer(tokenizer, flow.data_root, allow_pickle=allow_pickle)
    end = np.array([encoder.end_of_text])

    def pieces(spans: Sequence[Span]) -> Iterator[Piece]:
        for span in spans:
            for document in read(span, flow.texts):
                ids = encoder.encode(document.text)
                if document.starts:
                    ids = np.concatenate([end.astype(ids.dtype), ids])
                yield Piece(ids, document.starts)

    return replace(flow, pieces=pieces, vocab_size=encoder.vocab_size, vocabulary=encoder.sha256)


def chunk(flow: Flow, *, tokens: PositiveInt) -> Flow:
    """Cuts each document into pieces of ``tokens`` ids; the rest, shorter than that, is dropped.

    With context_length = ``tokens`` no window holds two documents. A text file above 4 MiB that
    is one document counts as one for every 4 MiB.
    """

    def pieces(spans: Sequence[Span]) -> Iterator[Piece]:
        rest: list[np.ndarray] = []
        for ids, starts in flow.pieces(spans):
            joined = ids if starts else np.concatenate([*rest, ids])
            whole = len(joined) - len(joined) % tokens
            for first in range(0, whole, tokens):
                yield Piece(joined[first : first + tokens], True)
            rest = [joined[whole:]]

    return replace(flow, pieces=pieces)


def shuffle(flow: Flow, *, buffer: PositiveInt) -> Flow:
    """Windows in a random order, of which ``buffer`` tokens are in memory (``order.py`` has it).

    Stretches of ``buffer`` tokens come in a random order, and in each of them its windows do.
    """
    return replace(flow, buffer=buffer)
