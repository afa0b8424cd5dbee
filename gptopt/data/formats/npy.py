"""Token ids in .npy files of any integer type, found by glob patterns, as in ``bin``.

One dimension, or two of which one is 1. The files are read, never mapped.
"""

from __future__ import annotations

from pathlib import Path

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus
from gptopt.data.npy import open_npy
from gptopt.data.stored import corpus_of_files, match


def build(
    *,
    data_root: Path,
    train: str,
    val: str | None,
    val_split: PositiveInt | Share | None,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens the files of both patterns and compares their headers with their sizes."""
    held_out = match(data_root, "val", val, open_npy) if val is not None else None
    return corpus_of_files(
        match(data_root, "train", train, open_npy), held_out, val_split, vocab_size
    )
