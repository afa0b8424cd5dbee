"""The arithmetic of a run: device, autocast and the loss scaler of float16."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor


class Scaled(Protocol):
    """What has gradients to unscale; the scaler remembers by object whether one overflowed."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups with ``params``."""


class SteppedOptimizer(Scaled, Protocol):
    """What the scaler needs of an optimizer; torch asks for its own class, but for no more."""

    def step(self) -> None:
        """Updates the parameters."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Master weights stay float32; forward and backward run in ``dtype`` under autocast."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device = device
        self.dtype = DTYPES[dtype]
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == "float16")

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of ``loss``, scaled in float16."""
        self.scaler.scale(loss).backward()

    def unscale(self, owner: Scaled) -> None:
        """Brings accumulated gradients back to their size; once a step for each owner."""
        self.scaler.unscale_(owner)  # type: ignore[arg-type]

    def step(self, optimizer: SteppedOptimizer) -> None:
        """Lets the optimizer step; in float16 not where a gradient overflowed."""
        self.scaler.step(optimizer)  # type: ignore[arg-type]
        self.scaler.update()

    def skip(self) -> None:
        """Leaves a step out after ``unscale``."""
        self.scaler.update()

    def synchronize(self) -> None:
        """Waits for the device; only steps that are logged may."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_device(local_rank: int) -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device("cpu")
