"""The weights before the last step, for rules that want a second gradient there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from gptopt.optim.common.base import Group


class EarlierWeights:
    """A copy of all weights of a model, always one step behind.

    A parameter that never had a gradient has never moved: it has no copy.

    Args:
        parameters: By name.

    Attributes:
        weights: The copies, by name; empty before the first step.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self.weights: dict[str, Tensor] = {}

    @property
    def param_groups(self) -> list[Group]:
        """The parameters, where torch's GradScaler looks for gradients to unscale."""
        return [{"params": list(self._parameters.values())}]

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the weights; to be called right before each step."""
        for name, param in self._parameters.items():
            if name in self.weights:
                self.weights[name].copy_(param)
            elif param.grad is not None:
                self.weights[name] = param.detach().clone()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Goes on from copies that were saved."""
        self.weights = {n: w.to(self._parameters[n].device) for n, w in weights.items()}

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Parameters hold the earlier weights inside, and their own after it, to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, earlier in self.weights.items():
            param = self._parameters[name]
            own = param.detach().clone()
            param.copy_(earlier)
            earlier.copy_(own)
