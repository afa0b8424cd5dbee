"""What ``gptopt data prepare`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from gptopt.data.texts import TextOptions


@dataclass(frozen=True)
class Options:
    """What is made of documents; the same options give the same bytes.

    Attributes:
        tokenizer: See ``gptopt/data/tokenizers.py``.
        allow_pickle: A .pkl tokenizer may run the code in it.
        val_share: Share of the documents that is held out, between 0 and 1.
        shard_tokens: Tokens of a shard, 1 to 2^31 - 1.
        shuffle_seed: Of the order of documents; None keeps that of the sources.
        deduplicate: Drop documents whose text was there before.
        texts: What documents are.
    """

    tokenizer: str
    allow_pickle: bool
    val_share: float
    shard_tokens: int
    shuffle_seed: int | None
    deduplicate: bool
    texts: TextOptions
