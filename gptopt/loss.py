"""The training objective."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gptopt.data.batch import IGNORED


def training_loss(
    logits_BTV: Tensor,
    targets_BT: Tensor,
    *,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    divisor: Tensor | None,
) -> Tensor:
    """Mean over tokens of the cross-entropy, nats, with its usual companions.

    Args:
        logits_BTV: Scores, any floating type; computed in float32.
        targets_BT: Next tokens.
        label_smoothing: Share of the target spread evenly over the vocabulary.
        z_loss: Weight of the mean of log(sum exp logits)^2 (PaLM, section 5).
        softcap: Logits become ``softcap * tanh(logits / softcap)``; None leaves them.
        divisor: None for the mean, where every target counts. Otherwise sums are divided by it,
            and targets of -100 add nothing: parts of a batch count unequally many tokens.
    """
    logits = logits_BTV.float().flatten(0, 1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    targets = targets_BT.flatten()
    if divisor is not None:
        loss = functional.cross_entropy(
            logits, targets, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
        )
        if z_loss:
            counts = targets != IGNORED
            loss = loss + z_loss * (logits.logsumexp(-1).square() * counts).sum()
        return loss / divisor
    loss = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if z_loss:
        loss = loss + z_loss * logits.logsumexp(-1).square().mean()
    return loss
