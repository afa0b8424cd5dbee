"""What every optimizer of gptopt promises, for ours and for anybody's: ``gptopt optim check``.

Each check is a function of ``optimizer_params``, the node of the YAML file. It returns when the
promise is kept, raises ``BrokenPromiseError`` with what to change when it is not, and
``NotApplicableError`` where the promise means nothing.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from gptopt.config.checks import optimizer_problems
from gptopt.config.problems import nearest
from gptopt.config.resolve import find_part, keys_of
from gptopt.optim.checking.toy import (
    NOTHING,
    ROLES,
    SCHEDULE,
    Tied,
    Toy,
    descend,
    optimizer_of,
    take_step,
    train,
)
from gptopt.optim.common.routing import COMMON, RoutedOptimizer, build_optimizer

Params = Mapping[str, Any]
GAPS = {0: "square_1", 2: "square_2"}
"""Step: parameter without a gradient in it."""
STEPS = range(len(SCHEDULE))


class BrokenPromiseError(AssertionError):
    """An optimizer does not do what all optimizers do."""


class NotApplicableError(Exception):
    """A check says nothing about this optimizer; the message tells why."""


def same_gradients_give_the_same_weights(params: Params) -> None:
    """Twice the same five steps, with other random numbers around them."""
    one, other = Toy(), Toy()
    for seed, model in enumerate((one, other)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            train(model, optimizer_of(params, model), range(5))
            if not torch.equal(before, torch.get_rng_state()):
                raise BrokenPromiseError(
                    "it draws from torch's global random numbers, which also order the data of a"
                    " run; draw from a torch.Generator of its own, seeded by group['step']."
                )
    if names := one.differs_from(other):
        raise BrokenPromiseError(f"the same five steps gave two results in {_list(names)}.")


def resuming_equals_not_stopping(params: Params) -> None:
    """To the bit, after 1, 3 and 5 of 8 steps, in a new start and on a way back."""
    for gaps in (NOTHING, GAPS):
        undisturbed = Toy()
        train(undisturbed, optimizer_of(params, undisturbed), STEPS, gaps)
        for saved_after in (1, 3, 5):
            _resume(params, undisturbed, saved_after, gaps)


def _resume(params: Params, undisturbed: Toy, saved_after: int, gaps: Mapping[int, str]) -> None:
    stopped, resumed = Toy(), Toy()
    rest = range(saved_after, len(STEPS))
    optimizer = optimizer_of(params, stopped)
    train(stopped, optimizer, range(saved_after), gaps)
    file = io.BytesIO()
    torch.save({"model": stopped.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(stopped, optimizer, rest, gaps)
    for model, state in ((resumed, optimizer_of(params, resumed)), (stopped, optimizer)):
        file.seek(0)
        try:
            loaded = torch.load(file, weights_only=True)
        except pickle.UnpicklingError as error:
            first = str(error).splitlines()[0]
            raise BrokenPromiseError(
                f"torch.load(weights_only=True) refuses its state: {first} Keep tensors and plain"
                " numbers only."
            ) from None
        model.load_state_dict(loaded["model"])
        state.load_state_dict(loaded["optimizer"])
        train(model, state, rest, gaps)
        if names := model.differs_from(undisturbed):
            raise BrokenPromiseError(
                f"saved after step {saved_after} of {len(STEPS)} and resumed, {_list(names)} came"
                " out otherwise than without a stop. All that a step leaves for the next belongs"
                " into `state` or `group`; nothing else is saved."
            )


def a_batch_moves_as_its_members_alone(params: Params) -> None:
    """Matrices of one shape are stacked; each still moves by its own gradient only."""
    together, alone = Toy(), Toy()
    optimizer = optimizer_of(params, together)
    if any(getattr(rule, "joint", False) for rule in optimizer.rules):
        raise NotApplicableError("its step is one for all parameters")
    train(together, optimizer, range(5), GAPS)
    for name in ("square_1", "square_2", "wide"):
        weight = getattr(alone, name)
        train(alone, optimizer_of(params, alone, [name]), range(5), GAPS)
        # Products of batches may be summed in another order than those of one matrix.
        if not torch.allclose(weight, getattr(together, name), rtol=1e-4, atol=1e-5):
            raise BrokenPromiseError(
                f"{name} moves otherwise beside a parameter of its shape than alone. The first"
                " dimension of `grad` and `state` counts parameters: reduce over the others only"
                " (dim=(-2, -1) for matrices), or set `joint = True`."
            )


def zero_gradients_leave_nothing_but_decay(params: Params) -> None:
    """W <- (1 - lr wd) W, three times."""
    model = Toy()
    optimizer, before = optimizer_of(params, model), model.weights()
    for _ in range(3):
        for param in model.parameters():
            param.grad = torch.zeros_like(param)
        take_step(model, optimizer, curvature=0.0)
    for row in optimizer.table:
        name, weight = row["name"], getattr(model, row["name"]).data
        expected = (1 - row["lr"] * row["weight_decay"]) ** 3 * before[name]
        if not weight.isfinite().all():
            raise BrokenPromiseError(
                f"a gradient of zeros makes {name} {_first_bad(weight)}: a division by zero."
            )
        if not torch.allclose(weight, expected, rtol=1.3e-6, atol=1e-5):
            raise BrokenPromiseError(
                f"with gradients of zeros {name} moves by other than its decay,"
                " W <- (1 - lr weight_decay) W."
            )


def a_nan_is_kept(params: Params) -> None:
    """A NaN in a gradient raises nothing, and is in the weight or its state afterwards.

    The loop sees the gradient and acts; a rule that hid it would go on from a state that is
    not what its equations say. (A sign of NaN is 0, so weights alone do not tell.)
    """
    for bad_step in (0, 3):
        model = Toy()
        optimizer = optimizer_of(params, model)
        train(model, optimizer, range(bad_step))
        model.set_gradients(bad_step)
        for param in model.parameters():
            param.grad.view(-1)[1] = torch.nan  # type: ignore[union-attr]
        take_step(model, optimizer)
        state = optimizer.state_dict()["state"]
        for name, weight in model.weights().items():
            held = [t for t in state.get(name, {}).values() if isinstance(t, torch.Tensor)]
            if not any(tensor.isnan().any() for tensor in (weight, *held)):
                raise BrokenPromiseError(
                    f"a NaN in the gradient of {name} is neither in the weight nor in its state"
                    " after the step: something replaces it without a word."
                )


def gradients_stay_untouched(params: Params) -> None:
    """What is logged after a step is the gradient that was used in it."""
    model = Toy()
    optimizer = optimizer_of(params, model)
    for step in range(2):
        model.set_gradients(step)
        before = {name: param.grad.clone() for name, param in model.named_parameters()}  # type: ignore[union-attr]
        take_step(model, optimizer)
        for name, param in model.named_parameters():
            if param.grad is None or not torch.equal(param.grad, before[name]):
                raise BrokenPromiseError(f"a step changes the gradient of {name}; copy it first.")


def every_parameter_goes_downhill(params: Params) -> None:
    """Forty steps on a quadratic, at the lr of the YAML."""
    model = Toy()
    optimizer, before = optimizer_of(params, model), model.losses()
    for step in range(40):
        model.set_gradients(step)
        take_step(model, optimizer)
    after = model.losses()
    if names := [name for name in before if not after[name] < before[name]]:
        raise BrokenPromiseError(
            f"after 40 steps on a quadratic the loss of {_list(names)} is no lower: its sign, its"
            f" scale or lr={params['lr']:g} is wrong."
        )


def every_parameter_is_in_one_group(params: Params) -> None:
    """By its role; tied weights count once."""
    model = Toy()
    model.tied = model.embedding
    names = model.named_parameters(remove_duplicate=False)
    optimizer = build_optimizer(params, names, ROLES)
    grouped = [id(param) for group in optimizer.param_groups for param in group["params"]]
    if sorted(grouped) != sorted(id(param) for param in model.parameters()):
        raise BrokenPromiseError("a parameter is in no group or in two; pass all groups on.")
    for row in optimizer.table:
        expected = "aux" if "aux" in params and row["role"] != "matrix" else params["name"]
        if row["rule"] != expected:
            raise BrokenPromiseError(f"{row['name']} went to {row['rule']}, not to {expected}.")
        if row["role"] in params["no_decay"] and row["weight_decay"] != 0:
            raise BrokenPromiseError(
                f"{row['name']} is decayed, though no_decay names {row['role']}: the weight_decay"
                " of a group wins over that of the optimizer."
            )


def tied_weights_stay_tied(params: Params) -> None:
    """In real steps and a resume, to the bit as if the tensor had no second name."""
    one, tied, resumed = (Tied(named_twice=twice) for twice in (False, True, True))
    _train_tied(one, _optimizer_of_tied(params, one), STEPS)
    first, rest = STEPS[:3], STEPS[3:]
    optimizer = _optimizer_of_tied(params, tied)
    _train_tied(tied, optimizer, first)
    weights, state = copy.deepcopy((tied.state_dict(), optimizer.state_dict()))
    _train_tied(tied, optimizer, rest)
    optimizer = _optimizer_of_tied(params, resumed)
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    _train_tied(resumed, optimizer, rest)
    for model, what in ((tied, "trained"), (resumed, "resumed")):
        for name, weight in one.named_parameters():
            if not torch.equal(weight, model.get_parameter(name)):
                raise BrokenPromiseError(
                    f"{what} with an embedding that is the head as well, {name} comes out otherwise"
                    " than where that tensor has one name; treat a tensor once, whatever its names."
                )


def _optimizer_of_tied(params: Params, model: Tied) -> RoutedOptimizer:
    names = model.named_parameters(remove_duplicate=False)
    optimizer = build_optimizer(params, names, model.roles)
    optimizer.attach(model)
    if [row["name"] for row in optimizer.table] != ["embedding.weight", "layer.weight"]:
        raise BrokenPromiseError("an embedding that is the head as well is not counted once.")
    return optimizer


def _train_tied(model: Tied, optimizer: RoutedOptimizer, steps: range) -> None:
    for step in steps:
        descend(partial(model.loss, step), model, optimizer)
    with optimizer.eval_weights():
        if model.head is not None and model.head.weight is not model.embedding.weight:
            raise BrokenPromiseError(
                "the head no longer is the embedding: layers are to be watched, not replaced."
            )


def no_gradient_means_no_change(params: Params) -> None:
    """Not even decay, and no state."""
    model = Toy()
    optimizer, before = optimizer_of(params, model), model.weights()
    left_out = ["square_2", "gain", "head"]
    for step in range(3):
        model.set_gradients(step, without=left_out)
        take_step(model, optimizer)
    after = model.weights()
    for name in left_out:
        if not torch.equal(before[name], after[name]) or name in optimizer.state_dict()["state"]:
            raise BrokenPromiseError(f"{name} has no gradient, and a step moves or remembers it.")


def the_learning_rate_of_the_group_is_used(params: Params) -> None:
    """Schedules set group['lr'] before each step."""
    model = Toy()
    optimizer, before = optimizer_of(params, model), model.weights()
    for multiplier in (0.0, 0.5):
        model.set_gradients(0)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
        take_step(model, optimizer)
        for name, weight in model.weights().items():
            if torch.equal(weight, before[name]) != (multiplier == 0):
                moved = "moves" if multiplier == 0 else "does not move"
                raise BrokenPromiseError(f"{name} {moved} at {multiplier} times its lr.")


def a_foreign_state_is_refused(params: Params) -> None:
    """With the names, and without a change."""
    model = Toy()
    optimizer = optimizer_of(params, model)
    train(model, optimizer, range(2))
    before = copy.deepcopy(optimizer.state_dict())
    renamed = copy.deepcopy(before)
    for group in renamed["param_groups"]:
        group["params"] = [name.replace("tall", "high") for name in group["params"]]
    try:
        optimizer.load_state_dict(renamed)
    except ValueError as error:
        if not ("'high'" in str(error) and "'tall'" in str(error)):
            raise BrokenPromiseError(f"the message names no parameter: {error}") from None
    else:
        raise BrokenPromiseError("the state of other parameters is loaded without a word.")
    if optimizer.state_dict()["param_groups"] != before["param_groups"]:
        raise BrokenPromiseError("a state that is refused changes the groups.")


def a_load_keeps_the_settings_of_the_config(params: Params) -> None:
    """lr and decay come from the config, the step count from what was saved."""
    model = Toy()
    saving = optimizer_of(params, model)
    train(model, saving, range(2))
    optimizer = optimizer_of({**params, "lr": 0.5, "weight_decay": 0.25}, model)
    optimizer.load_state_dict(copy.deepcopy(saving.state_dict()))
    first, saved = optimizer.param_groups[0], saving.param_groups[0]
    kept = (first["lr"], first["initial_lr"], first["weight_decay"])
    if kept != (0.5, 0.5, 0.25) or first.get("step") != saved.get("step"):
        raise BrokenPromiseError(
            f"after a load (lr, initial_lr, weight_decay) are {kept}, not (0.5, 0.5, 0.25), or the"
            " step count is lost."
        )


def the_yaml_lists_the_keys_of_build(params: Params) -> None:
    """Exactly: what is missing could not be set, what is more could not be used."""
    if missing := {"name", "lr", "weight_decay", "no_decay"} - params.keys():
        raise BrokenPromiseError(f"the YAML lacks {_list(sorted(missing))}, which all have.")
    file = find_part("optim", params["name"])
    if file is None:
        raise BrokenPromiseError(f"there is no Python file with `build` for {params['name']!r}.")
    takes, given = keys_of(file).keys(), params.keys() - set(COMMON)
    if given - takes:
        hint = nearest(min(given - takes), takes)
        raise BrokenPromiseError(
            f"build in {file.name} does not take {_list(sorted(given - takes))}, which the YAML"
            f" has.{hint} It takes, keyword-only: {', '.join(takes)}."
        )
    if takes - given:
        raise BrokenPromiseError(
            f"build in {file.name} takes {_list(sorted(takes - given))}, and the YAML lacks it."
        )


def the_values_of_the_yaml_are_of_their_types(params: Params) -> None:
    """Those of the annotations of build, as in a run."""
    if problems := optimizer_problems(params):
        raise BrokenPromiseError(" ".join(map(str, problems)))


YAML_CHECKS: tuple[Callable[[Params], None], ...] = (
    the_yaml_lists_the_keys_of_build,
    the_values_of_the_yaml_are_of_their_types,
)
"""Without these an optimizer cannot be made, so nothing else can be checked."""
CHECKS: tuple[Callable[[Params], None], ...] = (
    *YAML_CHECKS,
    every_parameter_is_in_one_group,
    every_parameter_goes_downhill,
    same_gradients_give_the_same_weights,
    resuming_equals_not_stopping,
    a_batch_moves_as_its_members_alone,
    zero_gradients_leave_nothing_but_decay,
    a_nan_is_kept,
    gradients_stay_untouched,
    tied_weights_stay_tied,
    no_gradient_means_no_change,
    the_learning_rate_of_the_group_is_used,
    a_foreign_state_is_refused,
    a_load_keeps_the_settings_of_the_config,
)


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _first_bad(weight: torch.Tensor) -> str:
    return "NaN" if weight.isnan().any() else "infinite"
