"""Two small models to hold optimizers to their promises.

``Toy`` has every role and kind of shape, and gradients that are known without a backward pass:
each weight has a target, and its loss is |W - target|^2 / 2. Each matrix also is the weight of a
layer, for optimizers that look at what enters it. ``Tied`` has a backward pass, and an embedding
that is its head as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from gptopt.optim.common.routing import RoutedOptimizer, build_optimizer

PARAMETERS: Mapping[str, tuple[str, tuple[int, ...]]] = {  # name: (role, shape)
    "embedding": ("embedding", (11, 6)),
    "wide": ("matrix", (6, 12)),
    "square_1": ("matrix", (6, 6)),
    "square_2": ("matrix", (6, 6)),
    "tall": ("matrix", (12, 6)),
    "row": ("matrix", (1, 6)),
    "gain": ("vector", (6,)),
    "bias": ("vector", (6,)),
    "head": ("head", (11, 6)),
}
ROLES = {name: role for name, (role, _) in PARAMETERS.items()}
NOTHING: Mapping[int, str] = {}


class Toy(torch.nn.Module):
    """Normal weights, and for each a target somewhere else; the same in each instance."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        numbers = torch.Generator().manual_seed(0)
        self.target = {}
        for name, (_, shape) in PARAMETERS.items():
            weight = torch.randn(shape, generator=numbers)
            self.register_parameter(name, torch.nn.Parameter(weight))
            self.target[name] = weight + 2 * torch.randn(shape, generator=numbers).sign()
            if ROLES[name] == "matrix":
                # on meta no initial weight is drawn: nobody's random numbers change
                layer = torch.nn.Linear(shape[1], shape[0], bias=False, device="meta")
                layer.weight = getattr(self, name)
                self.layers[name] = layer

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all weights."""
        return {name: param.detach().clone() for name, param in self.named_parameters()}

    def losses(self) -> dict[str, float]:
        """|W - target|^2 / 2 of each weight."""
        weights = self.named_parameters()
        return {name: (w - self.target[name]).square().sum().item() / 2 for name, w in weights}

    def set_gradients(self, step: int, without: Iterable[str] = ()) -> None:
        """The slopes of the losses, plus noise that is the same at the same step.

        Layers see inputs that are the same at the same step.
        """
        noise = torch.Generator().manual_seed(step)
        for name, param in self.named_parameters():
            slope = param.detach() - self.target[name]
            slope += 0.1 * torch.randn(param.shape, generator=noise)
            param.grad = None if name in without else slope
        for layer in self.layers.values():
            layer(torch.randn(32, layer.in_features, generator=noise))  # type: ignore[call-overload]

    def differs_from(self, other: Toy) -> list[str]:
        """Names of the weights that are not the same to the bit."""
        others = dict(other.named_parameters())
        return [name for name, p in self.named_parameters() if not torch.equal(p, others[name])]


def optimizer_of(
    params: Mapping[str, Any], model: torch.nn.Module, names: Iterable[str] | None = None
) -> RoutedOptimizer:
    """The optimizer of all parameters of a ``Toy``, or of those named, attached to it."""
    named = model.named_parameters()
    if names is not None:
        named = ((name, getattr(model, name)) for name in names)
    optimizer = build_optimizer(params, named, ROLES)
    optimizer.attach(model)
    return optimizer


def take_step(model: Toy, optimizer: RoutedOptimizer, *, curvature: float = 1.0) -> None:
    """Updates the weights as a training loop does, once the gradients G are there.

    Args:
        model: The owner of the weights W.
        optimizer: If it wants a gradient at earlier weights W', it gets G + curvature (W' - W).
        curvature: Second derivative of the loss; 1 is that of ``Toy``.
    """
    if optimizer.wants_earlier_gradient:
        before = {p: (p.grad, p.detach().clone()) for p in model.parameters() if p.grad is not None}
        with optimizer.earlier_weights():
            for param, (grad, weight) in before.items():
                param.grad = grad + curvature * (param.detach() - weight)
        for param, (grad, _) in before.items():
            param.grad = grad
    optimizer.observe(torch.tensor(sum(model.losses().values())))
    optimizer.step()
    optimizer.forget()


SCHEDULE = [1.0, 0.5, 0.25, 0.75, 0.6, 0.4, 0.2, 0.1]


def train(
    model: Toy, optimizer: RoutedOptimizer, steps: range, gaps: Mapping[int, str] = NOTHING
) -> None:
    """Steps along ``SCHEDULE``; in step s of ``gaps`` the parameter named there has no gradient."""
    for step in steps:
        model.set_gradients(step, without=[gaps.get(step, "")])
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * SCHEDULE[step]
        take_step(model, optimizer)


class Tied(torch.nn.Module):
    """Guesses a word from another one: an embedding, a layer, the embedding again as the head.

    Args:
        named_twice: Whether the head is a module of its own, whose weight is the embedding's.
    """

    roles: Mapping[str, str] = {
        "embedding.weight": "embedding",
        "layer.weight": "matrix",
        "head.weight": "head",
    }

    def __init__(self, *, named_twice: bool) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(0)
        self.words, width = 11, 6
        weight = torch.randn(self.words, width, generator=numbers)
        self.embedding = torch.nn.Embedding(self.words, width, _weight=weight)
        self.layer = torch.nn.Linear(width, width, bias=False, device="meta")
        self.layer.weight = torch.nn.Parameter(torch.randn(width, width, generator=numbers))
        self.head = None
        if named_twice:
            self.head = torch.nn.Linear(width, self.words, bias=False, device="meta")
            self.head.weight = self.embedding.weight

    def loss(self, step: int) -> torch.Tensor:
        """Nats per word; the same in each instance at the same step."""
        numbers = torch.Generator().manual_seed(step)
        given, next_words = torch.randint(self.words, (2, 32), generator=numbers)
        hidden = self.layer(self.embedding(given))
        head = self.head or (lambda x: F.linear(x, self.embedding.weight))
        return F.cross_entropy(head(hidden), next_words)


def descend(
    loss: Callable[[], torch.Tensor], model: torch.nn.Module, optimizer: RoutedOptimizer
) -> torch.Tensor:
    """Passes and update of one step on ``loss``, which it returns; none on one not finite."""
    model.zero_grad()
    if optimizer.wants_earlier_gradient:
        with optimizer.earlier_weights():
            loss().backward()
    value = loss()
    if value.isfinite():
        value.backward()
        optimizer.observe(value.detach())
        optimizer.step()
        optimizer.forget()
    return value
