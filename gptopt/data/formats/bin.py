"""Token shards (``.bin``), found by glob patterns; layouts in ``gptopt/data/shards.py``.

The files of a pattern, sorted by name, are one token sequence; windows run across their borders.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus
from gptopt.data.manifest import check_manifest
from gptopt.data.shards import Shards, open_shard
from gptopt.data.stored import corpus_of_files, match


def build(
    *,
    data_root: Path,
    train: str,
    val: str | None,
    val_split: PositiveInt | Share | None,
    dtype: Literal["uint8", "uint16", "uint32"] | None,
    tokenizer: str,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens all shards of both patterns and compares their headers, sizes and manifests."""
    parts = []
    for key, pattern in {"train": train, "val": val}.items():
        if pattern is not None:
            stored = match(data_root, key, pattern, partial(open_shard, raw_dtype=dtype))
            assert isinstance(stored.tokens, Shards)
            check_manifest(stored.tokens.shards, pattern, tokenizer)
            parts.append(stored)
    return corpus_of_files(parts[0], parts[1] if val else None, val_split, vocab_size)
