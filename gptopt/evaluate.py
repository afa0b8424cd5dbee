"""Losses over fixed numbers of tokens, whatever the batch size and the world."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from gptopt.data import Corpus, DataError, TokenSource
from gptopt.data.batch import IGNORED, Reading
from gptopt.data.corpus import Mixture, Tokens
from gptopt.data.loader import eval_windows
from gptopt.distributed import World
from gptopt.precision import Precision


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    corpus: Corpus,
    *,
    context_length: int,
    batch_size: int,
    tokens: int | None,
    with_tests: bool,
    reading: Reading,
    precision: Precision,
    world: World,
    beat: Callable[[], None],
) -> dict[str, float]:
    """Mean cross-entropy of every held-out set, nats per token that counts.

    Args:
        model: tokens (B, T) -> logits (B, T, V); is left in the mode it came in.
        corpus: Its ``val`` gives val_loss (of a mixture: the mean by weight of the
            val/<label>/loss of its parts), ``evals`` val/<label>/loss, and ``tests``
            test/<label>/loss or test_loss.
        context_length: Tokens of a window; windows do not overlap.
        batch_size: Sequences per forward; changes the speed alone.
        tokens: Predicted tokens, from the start of each validation set; None for all. Test sets
            are always read in full.
        with_tests: Whether test sets are evaluated, too.
        reading: How tokens become a batch.
        precision: Device and autocast.
        world: Windows are dealt to its processes in turn.
        beat: Called after every batch.

    Raises:
        DataError: A set has no target that counts.
    """

    def loss(source: TokenSource, name: str, tokens: int | None) -> float:
        # Summed in float64, not averaged: the last batch may hold fewer tokens.
        total = torch.zeros(2, dtype=torch.float64, device=precision.device)
        windows = eval_windows(
            source,
            context_length=context_length,
            tokens=tokens,
            batch_size=batch_size,
            rank=world.rank,
            world_size=world.size,
            reading=reading,
        )
        for made in windows:
            batch = made.to(precision.device)
            with precision.autocast():
                logits_BTV = model(batch.inputs, **batch.borders)
            targets = batch.targets.flatten()
            losses = functional.cross_entropy(
                logits_BTV.float().flatten(0, 1), targets, reduction="none", ignore_index=IGNORED
            )
            total += torch.stack([losses.double().sum(), (targets != IGNORED).sum()])
            beat()
        loss_sum, count = world.sum(total).tolist()
        if not count:
            raise DataError(f"{name}: data.ignore leaves no target of this set to count.")
        return loss_sum / count

    def losses(kind: str, label: str, source: Tokens, tokens: int | None) -> dict[str, float]:
        name = f"{kind}/{label}/loss" if label else f"{kind}_loss"
        if not isinstance(source, Mixture):
            return {name: loss(source, name, tokens)}
        found = [losses(kind, part.label, part.tokens, tokens) for part in source.parts]
        weights = [part.weight for part in source.parts]
        values = [value for each in found for value in each.values()]
        weighted = sum(w * value for w, value in zip(weights, values, strict=True))
        named = {key: value for each in found for key, value in each.items()}
        return {name: weighted / sum(weights)} | named

    was_training = model.training
    model.eval()
    found = losses("val", "", corpus.val, tokens)
    for label, source in corpus.evals.items():
        found |= losses("val", label, source, tokens)
    for label, source in corpus.tests.items() if with_tests else ():
        found |= losses("test", label, source, None)
    model.train(was_training)
    return found
