"""Gives every parameter of a model to exactly one rule, by its role.

An optimizer whose config has ``aux`` drives the hidden matrices, and the AdamW that ``aux``
describes drives the rest: embeddings, head, vectors. Without ``aux`` it drives everything.
Roles named in ``no_decay`` are not decayed, whichever rule drives them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from gptopt.config.resolve import load_part
from gptopt.config.types import Role
from gptopt.optim.common.base import Group, PlainOptimizer
from gptopt.optim.common.earlier import EarlierWeights
from gptopt.optim.common.width import follow_width

COMMON = ("name", "no_decay", "aux")
"""Keys of optimizer_params that this file reads; the optimizer's ``build`` gets the others."""
AUX = "adamw"
"""The optimizer of the parameters that a rule for matrices leaves."""
EARLIER = "earlier_weight"
"""The name in the saved state of a parameter under which its weight before the last step is."""


class RoutedOptimizer:
    """The rules that together update one model, as if they were one torch optimizer.

    Attributes:
        rules: torch optimizers; each parameter is in exactly one group of one of them.
        table: One dict per parameter, in the model's order: ``name, shape, role, rule, lr,
            weight_decay, numel``.
        earlier: The weights before the last step; empty unless a rule wants a gradient there.
    """

    def __init__(
        self,
        rules: list[torch.optim.Optimizer],
        parameters: Mapping[str, Parameter],
        settings: Iterable[str],
    ) -> None:
        self.rules = rules
        self._asking = [rule for rule in rules if isinstance(rule, PlainOptimizer)]
        self._settings = {*settings, "initial_lr"}
        self.earlier = EarlierWeights(parameters)
        self._looks_back = any(rule.wants_earlier_gradient for rule in self._asking)
        self._has_looked = False
        homes: dict[int, Group] = {}
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]
            homes |= {id(param): group for param in group["params"]}
        routed = sorted(id(param) for group in self.param_groups for param in group["params"])
        assert routed == sorted(map(id, parameters.values())), "a parameter in no or two groups"
        self.table = [
            {
                "name": name,
                "shape": list(param.shape),
                **{key: homes[id(param)][key] for key in ("role", "rule", "lr", "weight_decay")},
                "numel": param.numel(),
            }
            for name, param in parameters.items()
        ]

    @property
    def param_groups(self) -> list[Group]:
        """All groups of all rules, made anew by ``load_state_dict``.

        Beside torch's keys each has ``role``, ``rule`` and ``initial_lr``. A schedule sets
        ``lr`` to ``initial_lr`` times its multiplier before each step.
        """
        return [group for rule in self.rules for group in rule.param_groups]

    def attach(self, model: torch.nn.Module) -> None:
        """Lets rules that need more than gradients watch ``model``; once, before training."""
        for rule in self._asking:
            rule.attach(model)

    @property
    def wants_loss(self) -> bool:
        """Whether ``observe`` is to be called before each step."""
        return any(rule.wants_loss for rule in self._asking)

    def observe(self, loss: Tensor) -> None:
        """Takes the training loss, mean over processes: 0-dimensional."""
        for rule in self._asking:
            rule.observe(loss)

    @property
    def totals(self) -> list[Tensor]:
        """Tensors that are to be summed over processes before each step, in place."""
        return [total for rule in self._asking for total in rule.totals]

    @property
    def passes(self) -> int:
        """Forward and backward passes that a step takes of its batch, those of the first apart."""
        return 2 if self._looks_back else 1

    @property
    def wants_earlier_gradient(self) -> bool:
        """Whether the next step needs the gradient of its batch at the ``earlier_weights``."""
        return self._looks_back and bool(self.earlier.weights)

    @contextmanager
    def earlier_weights(self) -> Iterator[None]:
        """Parameters hold the weights before the last step inside; the gradients there are taken.

        No parameter may have a gradient before. Afterwards each has zeros, or NaN where what was
        taken is not finite, for the step's own gradient to be added to: so whatever checks that
        one has checked both.
        """
        with self.earlier.swapped():
            yield
        params = [param for group in self.param_groups for param in group["params"]]
        gradients = {param: param.grad for param in params if param.grad is not None}
        self.observe_earlier(gradients)
        for param, grad in gradients.items():
            param.grad = 0 * grad

    def observe_earlier(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Takes the gradients at the weights before the last step, by parameter."""
        self._has_looked = True
        for rule in self._asking:
            if rule.wants_earlier_gradient:
                own = [param for group in rule.param_groups for param in group["params"]]
                rule.observe_earlier({p: gradients[p] for p in own if p in gradients})

    def forget(self) -> None:
        """To be called after each step, also after one that was left out."""
        self._has_looked = False
        for rule in self._asking:
            rule.forget()

    def watch_step(self) -> None:
        """To be called before the forward pass of a step to tell ``diagnostics`` of."""
        for rule in self._asking:
            rule.watch_step()

    def diagnostics(self) -> dict[str, dict[str, Tensor | float]]:
        """What the rules tell of the step just taken, by parameter or rule; before ``forget``."""
        return {home: own for rule in self._asking for home, own in rule.diagnostics().items()}

    @property
    def has_eval_weights(self) -> bool:
        """Whether the weights to evaluate are others than those in training."""
        return any(rule.has_eval_weights for rule in self._asking)

    @contextmanager
    def eval_weights(self) -> Iterator[None]:
        """Parameters hold the weights to evaluate inside, and those in training after it."""
        with ExitStack() as stack:
            for rule in self._asking:
                stack.enter_context(rule.eval_weights())
            yield

    def step(self) -> None:
        """Lets each rule update its parameters.

        Raises:
            RuntimeError: A rule wants the gradient at earlier weights and did not get it.
        """
        if self.wants_earlier_gradient and not self._has_looked:
            raise RuntimeError(
                "this optimizer needs a second gradient: run the batch inside of"
                " earlier_weights() before every step() but the first."
            )
        if self._looks_back:
            self.earlier.keep()
        for rule in self.rules:
            rule.step()

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {parameter: {…}}, "param_groups": [{"params": [parameter, …], …}]}``.

        Parameters stand there by name, beside them only tensors and plain Python values, so
        that torch.load(weights_only=True) reads it. The tensors are those in use, not copies.
        """
        state: dict[str, Any] = {}
        groups = []
        for rule in self.rules:
            saved = rule.state_dict()
            for group in saved["param_groups"]:
                names = group.pop("param_names")
                for name, number in zip(names, group["params"], strict=True):
                    if number in saved["state"]:
                        state[name] = saved["state"][number]
                groups.append({**group, "params": names})
        for name, weight in self.earlier.weights.items():
            state[name] = {**state.get(name, {}), EARLIER: weight}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where ``state_dict`` was taken.

        What training built up (buffers, step counts) comes from ``state_dict``; what the
        config says (learning rate, decay, betas, …) stays what it is here. The tensors of
        ``state_dict`` are taken over, not copied.

        Raises:
            ValueError: It is of other parameters, roles or rules. Nothing has changed then.
        """
        saved_groups = {
            (group["rule"], group["role"]): group for group in state_dict["param_groups"]
        }
        there = {(*key, name) for key, group in saved_groups.items() for name in group["params"]}
        here = {
            (group["rule"], group["role"], name)
            for group in self.param_groups
            for name in group["param_names"]
        }
        if here != there:
            raise ValueError(
                "the saved optimizer state belongs to another model or optimizer. Only saved:"
                f" {sorted(there - here)[:3]}; only here: {sorted(here - there)[:3]}"
                " (rule, role, parameter; the first three)."
            )
        saved = {
            name: {key: value for key, value in own.items() if key != EARLIER}
            for name, own in state_dict["state"].items()
        }
        for rule in self.rules:
            state, groups = {}, []
            for group in rule.state_dict()["param_groups"]:
                for name, number in zip(group["param_names"], group["params"], strict=True):
                    if name in saved:
                        state[number] = saved[name]
                kept = {key: group[key] for key in ("params", *(self._settings & group.keys()))}
                groups.append({**saved_groups[group["rule"], group["role"]], **kept})
            rule.load_state_dict({"state": state, "param_groups": groups})
        if self._looks_back:
            held = state_dict["state"].items()
            self.earlier.load({name: own[EARLIER] for name, own in held if EARLIER in own})


def build_optimizer(
    params: Mapping[str, Any],
    model_parameters: Iterable[tuple[str, Parameter]],
    roles: Mapping[str, str],
    width: float | None = None,
) -> RoutedOptimizer:
    """The optimizer that ``params``, the node optimizer.optimizer_params, describes.

    Args:
        params: As in hydra_conf/optimizer/*.yaml.
        model_parameters: (name, parameter); of a tensor with several names the first counts.
        roles: Parameter name -> role.
        width: How many times as wide the model is as the one that lr was tuned on; width.py
            says what follows for each group. None: lr is that of all groups.

    Raises:
        ValueError: No such optimizer, a parameter without a role, or nothing to drive; with
            ``width`` also an optimizer of which it is not known what follows.
    """
    first: dict[int, tuple[str, Parameter]] = {}
    for name, param in model_parameters:
        first.setdefault(id(param), (name, param))
    parameters = dict(first.values())
    groups: dict[tuple[str, str], Group] = {}
    for name, param in parameters.items():
        role = _role(name, roles)
        rule = "aux" if "aux" in params and role != "matrix" else params["name"]
        group = groups.setdefault((rule, role), {"params": [], "rule": rule, "role": role})
        group["params"].append((name, param))
        if role in params["no_decay"]:
            group["weight_decay"] = 0.0
    own = [group for group in groups.values() if group["rule"] != "aux"]
    rest = [group for group in groups.values() if group["rule"] == "aux"]
    if not own:
        raise ValueError(f"optimizer {params['name']} drives matrices, and the model has none.")
    settings = {key: value for key, value in params.items() if key not in COMMON}
    rules = [load_part("optim", params["name"]).build(own, **settings)]
    if rest:
        rules.append(load_part("optim", AUX).build(rest, **params["aux"]))
    if width is not None:
        for rule, name in zip(rules, (params["name"], AUX), strict=False):
            follow_width(rule.param_groups, name, width)
    return RoutedOptimizer(rules, parameters, {*settings, *params.get("aux", ())})


def _role(name: str, roles: Mapping[str, str]) -> str:
    known = typing.get_args(Role)
    if roles.get(name) not in known:
        raise ValueError(
            f"parameter {name} has the role {roles.get(name)!r}; the model's parameter_roles()"
            f" gives it one of {', '.join(known)}."
        )
    return roles[name]
