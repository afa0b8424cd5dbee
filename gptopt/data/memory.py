"""Corpora that are tokenized when they are opened, and then lie in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gptopt.data.corpus import Corpus, DataError, split_tail
from gptopt.data.hashing import fingerprint
from gptopt.data.tokenizers import Tokenizer


def corpus_of(
    tokens: np.ndarray,
    val_split: int | float | None,
    origin: str,
    vocab_size: int,
    files: dict[str, str],
) -> Corpus:
    """A corpus of ``tokens``, shape (n,), whose tail is held out; fingerprint of both parts."""
    train, val = split_tail(tokens, val_split, origin)
    content_hash = fingerprint([("train", train.tobytes()), ("val", val.tobytes())])
    return Corpus(train, val, content_hash, vocab_size=vocab_size, files=files)


def joined(encoder: Tokenizer, texts: Iterable[tuple[str, bool]], origin: str) -> np.ndarray:
    """Ids of all ``texts`` in turn, (n,); (text, True) starts a document: end_of_text is before it.

    Raises:
        DataError: There is no text.
    """
    ids = []
    end = np.array([encoder.end_of_text])
    for text, starts in texts:
        encoded = encoder.encode(text)
        ids += [end.astype(encoded.dtype), encoded] if starts else [encoded]
    if not ids:
        raise DataError(f"{origin}: no text in it.")
    return np.concatenate(ids)


def smallest(arrays: Sequence[np.ndarray], origin: str | Path) -> np.ndarray:
    """Integers of any type, joined in the smallest unsigned type that holds them all.

    Raises:
        DataError: A number is negative, or there is none.
    """
    filled = [array for array in arrays if len(array)]
    if not filled:
        raise DataError(f"{origin}: no tokens in it.")
    if (lowest := min(int(array.min()) for array in filled)) < 0:
        raise DataError(f"{origin}: token id {lowest}; ids count from 0.")
    highest = max(int(array.max()) for array in filled)
    return np.concatenate([array.astype(np.min_scalar_type(highest)) for array in filled])
