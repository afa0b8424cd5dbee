"""Five toy problems that tell whether an optimizer optimizes, in a second or two.

Each is chosen for what goes wrong in optimizers: curvatures three decades apart, noise that
does not vanish, a curved valley, two layers that have to agree, and a transformer's own mixture
of attention, a norm, an embedding and a head. Every problem draws from generators of its own.
Weights start about as long as they end, so that rules that keep their norm can play too.

They find mistakes and rank nothing: an optimizer passes when some learning rate around that
of its YAML reaches a target that all working ones reach with room to spare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gptopt.optim.checking.toy import descend
from gptopt.optim.common.routing import build_optimizer

FACTORS = (10.0, 30.0, 100.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Learning rates that are tried, relative to that of the YAML, until one solves the problem.

The problems are small and short, so most optimizers want more here than on a GPT."""
TARGET = 0.2
"""Share of the score at the start that has to be reached; ours get below 0.16, most below 0.01."""


class Problem(nn.Module):
    """A model together with its data; ``loss`` is that of one step, ``score`` the true one.

    Attributes:
        name: For people.
        steps: Of one training; lr falls linearly to 0.
        roles: Parameter name -> role; what is not named is a matrix.
    """

    name: str
    steps: int
    roles: Mapping[str, str] = {}

    def loss(self, step: int) -> Tensor:
        """To be minimised; the same in each instance at the same step."""
        raise NotImplementedError

    def score(self) -> Tensor:
        """What counts in the end; the loss at step 0 unless it is noisy."""
        return self.loss(0)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer


class IllConditioned(Problem):
    """Linear regression on inputs whose variances are 1 to 1000, the largest scaled to 1."""

    name, steps = "ill-conditioned quadratic", 200

    def __init__(self) -> None:
        super().__init__()
        basis = torch.linalg.qr(_normal(12, 12, seed=1)).Q
        self.x = math.sqrt(12) * torch.logspace(0, -1.5, 12).diag() @ basis
        truth = _normal(8, 12, seed=2)
        self.layer = _linear(truth.flip(0))
        self.y = self.x @ truth.mT

    def loss(self, step: int) -> Tensor:
        """Half the mean squared error."""
        return (self.layer(self.x) - self.y).square().sum(1).mean() / 2


class Noisy(Problem):
    """The same loss with well-conditioned inputs, eight new ones in each step, noisy targets."""

    name, steps = "noisy quadratic", 200

    def __init__(self) -> None:
        super().__init__()
        self.truth = _normal(8, 12, seed=3)
        self.layer = _linear(self.truth.flip(0))

    def loss(self, step: int) -> Tensor:
        """Of this step's inputs."""
        x = _normal(8, 12, seed=100 + step)
        y = x @ self.truth.mT + _normal(8, 8, seed=10_000 + step)
        return (self.layer(x) - y).square().sum(1).mean() / 2

    def score(self) -> Tensor:
        """Without the noise, which no weights can explain."""
        return (self.layer.weight - self.truth).square().sum() / 2


class Valley(Problem):
    """Rosenbrock's curved valley in 8 pairs: (1 - a)^2 + 10 (b - a^2)^2."""

    name, steps = "Rosenbrock's valley", 300

    def __init__(self) -> None:
        super().__init__()
        start = _normal(4, 4, seed=4).mul(0.3)
        self.layer = _linear(start - 1)

    def loss(self, step: int) -> Tensor:
        """Mean over the pairs."""
        # through the layer, so that optimizers that watch its inputs see some
        a, b = self.layer(torch.eye(4)).mT.chunk(2)
        return ((1 - a).square() + 10 * (b - a.square()).square()).mean()


class Factorisation(Problem):
    """A matrix of rank 3 as the product of two layers, with one dimension to spare."""

    name, steps = "matrix factorisation", 300

    def __init__(self) -> None:
        super().__init__()
        self.down = _linear(0.7 * _normal(4, 12, seed=5))
        self.up = _linear(0.7 * _normal(10, 4, seed=6))
        self.goal = _normal(12, 3, seed=7) @ _normal(3, 10, seed=8) / 2

    def loss(self, step: int) -> Tensor:
        """Half the squared error, a mean over rows."""
        return (self.up(self.down(torch.eye(12))) - self.goal).square().sum(1).mean() / 2


class Recall(Problem):
    """Attention: after a b ... a say b. Embedding, head, a norm's gain, four matrices."""

    name, steps = "attention that recalls", 200
    roles = {"embedding.weight": "embedding", "head.weight": "head", "gain": "vector"}

    def __init__(self) -> None:
        super().__init__()
        width, self.words = 16, 8
        self.embedding = nn.Embedding(2 * self.words, width, _weight=_normal(16, width, seed=9))
        self.gain = nn.Parameter(torch.ones(width))
        self.queries, self.keys, self.values, self.mix = (
            _linear(_normal(width, width, seed=seed) / 4) for seed in (10, 11, 12, 13)
        )
        self.head = _linear(0.1 * _normal(self.words, width, seed=14))

    def loss(self, step: int) -> Tensor:
        """Nats per answer."""
        numbers = torch.Generator().manual_seed(500 + step % 8)
        keys = torch.rand(32, self.words, generator=numbers).argsort(1)[:, :4]
        values = torch.randint(self.words, (32, 4), generator=numbers)
        asked = torch.randint(4, (32, 1), generator=numbers)
        # each token tells a key and its value; the question a key only
        told = self.embedding(keys) + self.embedding(self.words + values)
        question = self.embedding(keys.gather(1, asked))
        x = F.rms_norm(told, told.shape[-1:], self.gain)
        q = F.rms_norm(question, told.shape[-1:], self.gain)
        weights = (self.queries(q) @ self.keys(x).mT / 4).softmax(-1)
        mixed = q + self.mix(weights @ self.values(x))
        logits = self.head(mixed).flatten(0, 1)
        return F.cross_entropy(logits, values.gather(1, asked).flatten())

    def score(self) -> Tensor:
        """Over all of its batches."""
        return torch.stack([self.loss(step) for step in range(8)]).mean()


PROBLEMS: tuple[type[Problem], ...] = (IllConditioned, Noisy, Valley, Factorisation, Recall)


@dataclass(frozen=True)
class Score:
    """How an optimizer did on one problem.

    Attributes:
        problem: Its name.
        start: Score before training.
        end: Score after it; inf where it was never finite.
        lr: The first learning rate that solved it, else the best.
    """

    problem: str
    start: float
    end: float
    lr: float

    @property
    def solved(self) -> bool:
        """Whether the target was reached."""
        return self.end <= TARGET * self.start


def play(make: type[Problem], params: Mapping[str, Any]) -> Score:
    """Trains a problem at one learning rate after another; that of ``aux`` is scaled alike."""
    problem = make()
    best = Score(problem.name, problem.score().item(), math.inf, params["lr"])
    for factor in FACTORS:
        end = _train(make(), params, factor)
        if end < best.end:
            best = replace(best, end=end, lr=factor * params["lr"])
        if best.solved:
            break
    return best


def _train(problem: Problem, params: Mapping[str, Any], factor: float) -> float:
    roles = {name: problem.roles.get(name, "matrix") for name, _ in problem.named_parameters()}
    optimizer = build_optimizer(params, problem.named_parameters(), roles)
    optimizer.attach(problem)
    for step in range(problem.steps):
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"] * (1 - step / problem.steps)
        if not descend(partial(problem.loss, step), problem, optimizer).isfinite():
            return math.inf
    with optimizer.eval_weights(), torch.no_grad():
        end = problem.eval().score().item()
    return end if math.isfinite(end) else math.inf
