"""Validation loss over a fixed number of tokens, whatever the batch size and the world."""

from __future__ import annotations

import torch
from torch.nn import functional

from gptopt.data import TokenSource
from gptopt.data.loader import eval_windows
from gptopt.distributed import World
from gptopt.precision import Precision


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    source: TokenSource,
    *,
    context_length: int,
    batch_size: int,
    tokens: int | None,
    precision: Precision,
    world: World,
) -> float:
    """Mean cross-entropy, nats per token.

    Args:
        model: tokens (B, T) -> logits (B, T, V); is left in the mode it came in.
        source: Validation tokens.
        context_length: Tokens of a window; windows do not overlap.
        batch_size: Sequences per forward; changes the speed alone.
        tokens: Predicted tokens, from the start of ``source``; None for all of it.
        precision: Device and autocast.
        world: Windows are dealt to its processes in turn.
    """
    was_training = model.training
    model.eval()
    # Summed in float64, not averaged: the last batch may hold fewer tokens.
    total = torch.zeros(2, dtype=torch.float64, device=precision.device)
    windows = eval_windows(
        source,
        context_length=context_length,
        tokens=tokens,
        batch_size=batch_size,
        rank=world.rank,
        world_size=world.size,
    )
    for x_BT, y_BT in windows:
        with precision.autocast():
            logits_BTV = model(x_BT.to(precision.device))
        losses = functional.cross_entropy(
            logits_BTV.float().flatten(0, 1),
            y_BT.to(precision.device).flatten(),
            reduction="none",
        )
        total += torch.stack([losses.double().sum(), losses.new_tensor(losses.numel()).double()])
    model.train(was_training)
    loss_sum, count = world.sum(total).tolist()
    return loss_sum / count
