"""Questions asked of a corpus before a model is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gptopt.data.corpus import Corpus, DataError, Tokens, TokenSource, mixture_of
from gptopt.data.mixture import mixed_order, windows_in
from gptopt.data.shards import place_of

CHUNK = 1 << 24
READ_IN_FULL = 1 << 30
"""Tokens of a source up to which every id is looked at before the start; of a longer source
some places are, and the rest when it is read for a batch."""
PLACES, PLACE = 64, 1 << 16
"""How many places, and how many tokens there."""


def sources_of(corpus: Corpus) -> Iterator[tuple[str, TokenSource]]:
    """Every source of a corpus, with what it is called in a message."""
    kinds: list[tuple[str, Tokens]] = [("the training set", corpus.train)]
    kinds.append(("the validation set", corpus.val))
    kinds += [(f"data.eval.{label}", tokens) for label, tokens in corpus.evals.items()]
    for label, tokens in corpus.tests.items():
        kinds.append((f"data.test.{label}" if label else "the test set", tokens))
    for kind, tokens in kinds:
        for part in mixture_of(tokens).parts:
            yield f"{kind} of {part.label}" if part.label else kind, part.tokens


def check_ids(source: TokenSource, vocab_size: int, *, in_full: bool) -> None:
    """Refuses a token id that the model has no embedding for.

    Costs about 25 ms per 10^8 tokens and nothing where the type cannot hold such an id.

    Args:
        source: Tokens.
        vocab_size: Ids are below it.
        in_full: Look at every id, of up to 2^30 tokens. Otherwise 64 places are looked at, the
            first and the last among them, each of 2^16 tokens.

    Raises:
        DataError: Names the first such id found, its file and its offset.
    """
    if getattr(source, "max_id", np.iinfo(source.dtype).max) < vocab_size:
        return
    starts: range | list[int] = range(0, len(source), CHUNK)
    length = CHUNK
    if len(source) > (READ_IN_FULL if in_full else PLACES * PLACE):
        length, last = PLACE, len(source) - PLACE
        starts = [last * number // (PLACES - 1) for number in range(PLACES)]
    for start in starts:
        chunk = source[start : min(start + length, len(source))]
        if chunk.max() >= vocab_size:
            at = int(np.argmax(chunk >= vocab_size))
            raise wrong_id(source, start + at, int(chunk[at]), vocab_size)


def wrong_id(source: TokenSource, index: int, token: int, vocab_size: int) -> DataError:
    """The error of a token id that the model has no embedding for."""
    return DataError(
        f"{place_of(source, index)}: token id {token}; model.config.vocab_size={vocab_size} takes "
        f"ids below {vocab_size}. Use the tokenizer of the data's vocabulary, a larger "
        "vocab_size, or, where the file is damaged, prepare it again."
    )


def check_corpus(
    corpus: Corpus,
    data: Mapping[str, Any],
    *,
    context_length: int,
    global_batch_size: int,
    samples: int | None,
    eval_tokens: int | None,
) -> list[str]:
    """Whether a corpus has what a run asks of it, but for the ids: see ``check_ids``.

    Args:
        corpus: What is trained on.
        data: The node ``data`` of the configuration.
        context_length: Tokens that a window predicts.
        global_batch_size: Windows per optimizer step, over all devices.
        samples: Windows of the whole run; None where that is not known.
        eval_tokens: Tokens that an evaluation predicts of each set; None for all of it.

    Returns:
        How often the run reads each part of a mixture, in words.

    Raises:
        DataError: With what does not fit.
    """
    check_documents(corpus, data["documents"], data["end_of_text"])
    check_enough(
        corpus,
        context_length=context_length,
        global_batch_size=global_batch_size,
        eval_tokens=eval_tokens,
    )
    if samples is None:
        return []
    return check_epochs(corpus, context_length=context_length, samples=samples, loop=data["loop"])


def check_enough(
    corpus: Corpus, *, context_length: int, global_batch_size: int, eval_tokens: int | None
) -> None:
    """Refuses a corpus too small for one optimizer step or one evaluation.

    Args:
        corpus: What is trained on.
        context_length: Tokens that a window predicts.
        global_batch_size: Windows per optimizer step, over all devices.
        eval_tokens: Tokens that an evaluation predicts of each set; None for all of it.

    Raises:
        DataError: With the numbers that do not fit.
    """
    windows = sum(windows_in(corpus.train, context_length))
    if windows < global_batch_size:
        raise DataError(
            f"{len(corpus.train):,} training tokens make {windows:,} windows of "
            f"context_length={context_length} (and the token after each); one optimizer step "
            f"takes global_batch_size={global_batch_size}. Lower "
            "training.training_params.global_batch_size or context_length, or use a larger corpus."
        )
    mixed_order(corpus.train, context_length)
    for name, source in sources_of(corpus):
        targets = len(source) - 1
        if targets < 1:
            raise DataError(
                f"{name[0].upper()}{name[1:]} has {len(source)} tokens and needs at least 2. "
                "Hold out more (data.val_split, data.val_every, data.val, data.splits)."
            )
        is_validation = not name.startswith(("the t", "data.test"))
        if is_validation and eval_tokens is not None and eval_tokens > targets:
            raise DataError(
                f"logging.logging_params.eval_tokens={eval_tokens}: {name} has {targets:,} "
                "tokens to predict. Give at most that, or null for all of them."
            )


def check_epochs(corpus: Corpus, *, context_length: int, samples: int, loop: bool) -> list[str]:
    """How often a run of ``samples`` windows reads each part of a mixture, in words.

    Raises:
        DataError: More than once, and ``loop`` is false.
    """
    order = mixed_order(corpus.train, context_length)
    lines = []
    parts = mixture_of(corpus.train).parts
    for part, windows, read in zip(parts, order.windows, order.counts(samples), strict=True):
        name = f"{part.label}: " if part.label else ""
        if read > windows and not loop:
            raise DataError(
                f"data.loop=false: {name}the run reads {read:,} windows of context_length="
                f"{context_length}, and there are {windows:,}. Shorten it (max_steps, max_tokens, "
                "num_epochs=1), bring more data, or set data.loop=true."
            )
        if part.label:
            share, epochs = read / samples, read / windows
            lines.append(f"{name}{read} windows, {share:.4g} of the run, {epochs:.3g} epochs")
    return lines


def check_documents(corpus: Corpus, documents: str, end_of_text: int | None) -> None:
    """Refuses a question about documents that a source has no answer to.

    Args:
        corpus: All of it is asked.
        documents, end_of_text: The keys of ``data``.

    Raises:
        DataError: Names the source and the two ways out.
    """
    if documents == "plain" or end_of_text is not None:
        return
    for name, source in sources_of(corpus):
        if getattr(source, "boundaries", None) is None:
            raise DataError(
                f"data.documents={documents}: {name} does not say where its documents begin. Set "
                "data.end_of_text to the token id with which they do (gpt2: 50256), or "
                "data.documents=plain."
            )
