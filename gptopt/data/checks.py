"""Questions asked of a corpus before a model is built."""

from __future__ import annotations

import numpy as np

from gptopt.data.corpus import Corpus, DataError, TokenSource
from gptopt.data.shards import Shards

CHUNK = 1 << 24


def check_ids(source: TokenSource, vocab_size: int) -> None:
    """Reads all of ``source`` and refuses a token id that the model has no embedding for.

    Costs about 25 ms per 10^8 tokens and nothing where the type cannot hold such an id.

    Raises:
        DataError: Names the first such id, its file and its offset.
    """
    if np.iinfo(source.dtype).max < vocab_size:
        return
    for start in range(0, len(source), CHUNK):
        chunk = source[start : min(start + CHUNK, len(source))]
        if chunk.max() >= vocab_size:
            at = int(np.argmax(chunk >= vocab_size))
            index = start + at
            place = source.where(index) if isinstance(source, Shards) else f"Token {index}"
            raise DataError(
                f"{place}: token id {chunk[at]}; model.config.vocab_size={vocab_size} takes ids "
                f"below {vocab_size}. Use the tokenizer of the data's vocabulary, a larger "
                "vocab_size, or, where the file is damaged, prepare it again."
            )


def check_enough(
    corpus: Corpus, *, context_length: int, global_batch_size: int, eval_tokens: int | None
) -> None:
    """Refuses a corpus too small for one optimizer step or one evaluation.

    Args:
        corpus: What is trained on.
        context_length: Tokens that a window predicts.
        global_batch_size: Windows per optimizer step, over all devices.
        eval_tokens: Tokens that an evaluation predicts; None for all of ``corpus.val``.

    Raises:
        DataError: With the numbers that do not fit.
    """
    windows = (len(corpus.train) - 1) // context_length
    if windows < global_batch_size:
        raise DataError(
            f"{len(corpus.train):,} training tokens make {max(windows, 0):,} windows of "
            f"context_length={context_length} (and the token after each); one optimizer step "
            f"takes global_batch_size={global_batch_size}. Lower "
            "training.training_params.global_batch_size or context_length, or use a larger corpus."
        )
    targets = len(corpus.val) - 1
    if targets < 1:
        raise DataError(
            f"The validation set has {len(corpus.val)} tokens and needs at least 2. "
            "Hold out more (data.val_split, data.val_every, data.val)."
        )
    if eval_tokens is not None and eval_tokens > targets:
        raise DataError(
            f"logging.logging_params.eval_tokens={eval_tokens}: the validation set has {targets:,} "
            "tokens to predict. Give at most that, or null for all of them."
        )
