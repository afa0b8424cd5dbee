"""What every optimizer shares: decoupled decay, learning rate, batches of equal shapes, state.

An update rule says in which direction W moves; this file moves it:

    t <- t + 1
    W <- (1 - lr wd) W - lr direction(G)

Parameters of one group that have equal shapes are updated as one batch, on a CPU in a few:
``direction`` sees their gradients stacked as (B, *shape), and keeps its state stacked likewise.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gptopt.optim.common.linalg import polar

Group = dict[str, Any]
"""One parameter group: ``params``, ``lr``, ``weight_decay``, the rule's settings, ``step``."""


class PlainOptimizer(torch.optim.Optimizer):
    """torch's Optimizer without the import of torch._dynamo, which costs a second.

    torch keeps its compiler out of these methods by a wrapper whose first call imports the
    compiler, also where nothing is ever compiled. What it wraps does the work. A torch
    version that wraps nothing loses nothing here: ``unwrap`` then returns its argument.

    It also names what a rule may ask a training loop for beside gradients. Nothing is asked
    for here; a rule that needs something overrides the method.

    Attributes:
        wants_loss: Whether ``observe`` is to be called before each step.
        has_eval_weights: Whether ``eval_weights`` changes anything.
        wants_earlier_gradient: Whether ``observe_earlier`` is to be called before each step but
            the first. It costs a second forward and backward pass, which hooks of ``attach``
            see too, and a copy of all weights.
    """

    wants_loss = False
    has_eval_weights = False
    wants_earlier_gradient = False

    def attach(self, model: torch.nn.Module) -> None:
        """Called once, before training: the place for hooks."""

    @property
    def totals(self) -> list[Tensor]:
        """Tensors that are to be summed over processes before each step, in place."""
        return []

    def observe(self, loss: Tensor) -> None:
        """Takes the training loss at the weights that the gradients are of, 0-dimensional."""

    def observe_earlier(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Takes the gradients of this step's batch at the weights before the last step.

        Args:
            gradients: By parameter of this rule, averaged and clipped as its ``grad`` is; a
                parameter that had none is not in it.
        """

    def forget(self) -> None:
        """Called after each step, also after one that was left out: what was seen is used up."""

    def eval_weights(self) -> AbstractContextManager[None]:
        """Parameters hold the weights to evaluate inside, and those in training after it."""
        return nullcontext()

    def watch_step(self) -> None:
        """Called before the forward pass of a step whose ``diagnostics`` will be asked for."""

    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """What the rule tells of the step just taken; called after it and before ``forget``.

        Returns:
            Numbers by name, by parameter; those that are one for all by the name of the rule.
        """
        return {}

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class UpdateRule(PlainOptimizer):
    """An optimizer that only has to say in which ``direction`` its parameters move.

    Args:
        groups: Parameter groups; what a group itself sets wins over ``settings``.
        settings: At least ``lr`` and ``weight_decay``. Everything in a group, the state and
            ``step`` (steps taken so far, an int) is saved and comes back on a resume. A rule
            that names ``cautious`` among them is made ``cautious`` where it is true.

    A parameter without a gradient is left alone, not even decayed. The step count is the
    group's, so bias corrections do not start anew for one whose first gradient comes late.

    Attributes:
        joint: Whether the step of one parameter depends on the others' gradients.
    """

    joint = False

    def __init__(self, groups: Iterable[Group], **settings: Any) -> None:
        self._stacks: dict[tuple[int, ...], dict[str, Tensor]] = {}
        super().__init__(groups, {**settings, "step": 0})

    def direction(self, grad: Tensor, state: dict[str, Tensor], group: Group) -> Tensor:
        """The direction in which W moves against, before decay and learning rate.

        Args:
            grad: Gradients, stacked: (B, *shape). A copy, free to be written to.
            state: Empty at the first call; then what the rule put there, tensors whose first
                dimension is B.
            group: The settings, and ``step``, 1 at the first call.

        Returns:
            Shape and dtype of ``grad``.
        """
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; gradients stay as they are."""
        for group in self.param_groups:
            group["step"] += 1
            for params in self._batches(group):
                with self._state(params) as state:
                    update = self.batch_direction(params, state, group)
                self._check_shape(update, params)
                if group.get("cautious", False):
                    update = cautious(update, gradients(params))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, update.unbind(), alpha=-group["lr"])

    def batch_direction(
        self, params: list[Tensor], state: dict[str, Tensor], group: Group
    ) -> Tensor:
        """``direction`` for ``params``; to be overridden by rules that look beyond gradients."""
        return self.direction(gradients(params), state, group)

    def _check_shape(self, update: Tensor, params: list[Tensor]) -> None:
        """Another shape would be broadcast to the weights without a word."""
        wanted, given = (len(params), *params[0].shape), getattr(update, "shape", None)
        if given != wanted:
            said = type(update).__name__ if given is None else f"a tensor of shape {tuple(given)}"
            raise ValueError(
                f"the direction of {type(self).__name__} is {said}; it takes the shape of grad,"
                f" (B, *shape), here {wanted}."
            )

    def _batches(self, group: Group) -> list[list[Tensor]]:
        """The parameters with gradients by shape; those still without state apart."""
        batches: dict[Any, list[Tensor]] = {}
        for param in group["params"]:
            if param.grad is not None:
                kind = (param.shape, param.dtype, param.device, param in self.state)
                batches.setdefault(kind, []).append(param)
        return [part for batch in batches.values() for part in _fitting(batch)]

    @contextmanager
    def _state(self, params: list[Tensor]) -> Iterator[dict[str, Tensor]]:
        """The stacked state of ``params``; what is new in it afterwards is kept."""
        stack = self._stack(params)
        before = dict(stack)
        yield stack
        self._publish(params, {n: s for n, s in stack.items() if s is not before.get(n)})

    def _stack(self, params: list[Tensor]) -> dict[str, Tensor]:
        """The stacked state of ``params``.

        ``self.state`` holds views into the stacks, parameter by parameter, which is how torch
        saves and loads it. A stack is built anew from views after a load, and when other
        parameters than before have gradients.
        """
        members = tuple(map(id, params))
        if members not in self._stacks:
            names = self.state.get(params[0], {})
            stack = {n: torch.stack([self.state[param][n] for param in params]) for n in names}
            self._publish(params, stack)
            kept = {ids: s for ids, s in self._stacks.items() if not set(ids) & set(members)}
            self._stacks = {**kept, members: stack}
        return self._stacks[members]

    def _publish(self, params: list[Tensor], stack: dict[str, Tensor]) -> None:
        """Makes the state of each of ``params`` a view into ``stack``."""
        for name, stacked in stack.items():
            for param, view in zip(params, stacked.unbind(), strict=True):
                self.state[param][name] = view

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # after load_state_dict and unpickling
        self._stacks = {}


CACHED = 2**20
"""Elements of a batch on a CPU; one that is larger than caches is slower than its members."""


def _fitting(batch: list[Tensor]) -> list[list[Tensor]]:
    """``batch``, on a CPU in parts that fit into its caches."""
    if batch[0].device.type != "cpu":
        return [batch]
    size = max(1, CACHED // max(1, batch[0].numel()))
    return [batch[first : first + size] for first in range(0, len(batch), size)]


def gradients(params: list[Tensor]) -> Tensor:
    """The gradients of parameters of one shape, stacked: (B, *shape), a copy."""
    return torch.stack([param.grad for param in params])  # type: ignore[misc]


LEAST_SHARE = 1e-3
"""Fewer entries that ``cautious`` keeps are scaled up as if there were so many."""


def cautious(update: Tensor, grad: Tensor) -> Tensor:
    """Of U = ``update`` the entries of the sign of the gradient G, scaled up by their share.

    Source: Liang et al. (2024), "Cautious optimizers: improving training with one line of
    code". The paper scales by d / (kept + 1), with d entries; we follow the authors' code, as
    the published runs do.

        K  = 1 where U G > 0, else 0
        U <- K U / max(mean(K), 0.001)

    Args:
        update: Stacked: (B, *shape). The mean is over each of the B.
        grad: As before the rule wrote to it.
    """
    kept = (update * grad > 0).to(update.dtype)
    share = kept.mean(dim=tuple(range(1, update.ndim)), keepdim=True)
    return update * kept / share.clamp_(min=LEAST_SHARE)


def orthogonal(matrix: Tensor, group: Group) -> Tensor:
    """The polar factor of ``matrix``, computed as ``polar`` and ``ns_*`` of ``group`` say."""
    dtype = getattr(torch, group["ns_dtype"])
    return polar(matrix, method=group["polar"], steps=group["ns_steps"], dtype=dtype)


class MatrixOptimizer(UpdateRule):
    """An update rule for matrices only: ``grad`` is (B, m, n).

    Raises:
        ValueError: A parameter is not a matrix.
    """

    def __init__(self, groups: Iterable[Group], **settings: Any) -> None:
        super().__init__(groups, **settings)
        for group in self.param_groups:
            require_matrices(self, group)


def require_matrices(rule: UpdateRule, group: Group) -> None:
    """Checks that all parameters of ``group`` are matrices.

    Raises:
        ValueError: One is not.
    """
    names = group.get("param_names", range(len(group["params"])))
    for name, param in zip(names, group["params"], strict=True):
        if param.ndim != 2:
            raise ValueError(
                f"{type(rule).__name__} moves matrices, and {name} has shape"
                f" {tuple(param.shape)}. Give its role to the AdamW of"
                " optimizer.optimizer_params.aux."
            )
