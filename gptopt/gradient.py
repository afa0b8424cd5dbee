"""The gradient of a global batch: forward and backward over its parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from gptopt.config.schema import TrainingParams
from gptopt.data.batch import Batch, Reading, counted
from gptopt.distributed import World
from gptopt.loss import training_loss
from gptopt.precision import Precision, Scaled


def global_gradient(
    model: Module,
    parameters: list[Parameter],
    params: TrainingParams,
    reading: Reading,
    precision: Precision,
    world: World,
    batches: list[Batch],
    owner: Scaled,
) -> tuple[Tensor, Tensor]:
    """Leaves the gradient in the parameters: averaged over processes, unscaled and clipped.

    Args:
        model: In training mode.
        parameters: Those of ``model`` that are trained.
        params: Loss and clipping.
        reading: Whether some targets do not count.
        precision: What forward and backward are computed in.
        world: All processes; each has parts of its own.
        batches: The parts of this process, of equal shapes.
        owner: By what the loss scaler knows this gradient.

    Returns:
        The loss of this process and the norm before clipping, 0-dimensional.
    """
    loss = torch.zeros((), device=precision.device)
    divisor = None  # every part is a mean over equally many targets
    if reading.ignores:
        divisor = world.sum(counted(batches)).clamp(min=1) / world.size
    for batch in batches:
        with precision.autocast():
            logits_BTV = model(batch.inputs, **batch.borders)
        part = training_loss(logits_BTV, batch.targets, divisor=divisor, **vars(params.loss))
        if divisor is None:
            part = part / len(batches)
        precision.backward(part)
        loss += part.detach()
    world.average_gradients(parameters)
    precision.unscale(owner)
    return loss, torch.nn.utils.clip_grad_norm_(parameters, params.max_grad_norm or math.inf)
