"""One place for the arithmetic of batch sizes, devices, tokens, steps and epochs.

    global_batch_size = batch_size * accumulation_steps * data_parallel_size   (sequences)
    tokens_per_step   = global_batch_size * context_length
    steps             = the tightest of max_steps, max_tokens / tokens_per_step and
                        num_epochs * windows / global_batch_size, rounded down

Whatever is null is derived from the rest; what contradicts is an error with its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptopt.config.schema import Config


@dataclass(frozen=True)
class Batch:
    """Sequences per forward, per step and how many forwards a step takes on each device."""

    batch_size: int
    global_batch_size: int
    accumulation_steps: int
    data_parallel_size: int

    def __str__(self) -> str:
        return (
            f"global_batch_size {self.global_batch_size} = batch_size {self.batch_size}"
            f" x accumulation_steps {self.accumulation_steps}"
            f" x data_parallel_size {self.data_parallel_size}"
        )


def solve_batch(
    *,
    batch_size: int | None,
    global_batch_size: int | None,
    accumulation_steps: int | None,
    data_parallel_size: int,
) -> Batch:
    """Fills in what is None; with two unknown, a step takes one forward per device.

    Raises:
        ValueError: The numbers contradict each other or do not divide.
    """
    micro, total, steps, devices = (
        batch_size,
        global_batch_size,
        accumulation_steps,
        data_parallel_size,
    )
    if total is None:
        if micro is None:
            raise ValueError("batch_size and global_batch_size are both null; set one of them")
        steps = steps or 1
        return Batch(micro, micro * steps * devices, steps, devices)
    if total % devices:
        raise ValueError(
            "Batch size must be divisible by data parallel size "
            f"(global_batch_size={total}, data_parallel_size={devices})"
        )
    per_device = total // devices
    if micro is None:
        steps = steps or 1
        if per_device % steps:
            raise ValueError(
                f"global_batch_size={total} over data_parallel_size={devices} leaves {per_device}"
                f" sequences per device, which accumulation_steps={steps} does not divide"
            )
        return Batch(per_device // steps, total, steps, devices)
    if per_device % micro:
        raise ValueError(
            f"global_batch_size={total} over data_parallel_size={devices} leaves {per_device}"
            f" sequences per device, which batch_size={micro} does not divide;"
            f" batch_size={largest_divisor(per_device, micro)} does"
        )
    if steps is not None and steps != per_device // micro:
        raise ValueError(
            f"global_batch_size={total} takes accumulation_steps={per_device // micro}"
            f" (batch_size={micro}, data_parallel_size={devices}), not {steps}; set it to null"
        )
    return Batch(micro, total, per_device // micro, devices)


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of ``number`` that is at most ``at_most``."""
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


@dataclass(frozen=True)
class Length:
    """How long a run is and which limit said so."""

    max_steps: int
    arithmetic: str


def solve_length(
    *,
    max_steps: int | None,
    max_tokens: int | None,
    num_epochs: float | None,
    tokens_per_step: int,
    global_batch_size: int,
    windows: int | None,
) -> Length | None:
    """The number of optimizer steps; of several limits the tightest holds.

    Args:
        max_steps: Limit in optimizer steps.
        max_tokens: Limit in training tokens.
        num_epochs: Limit in passes over the training windows.
        tokens_per_step: Tokens of one optimizer step, all devices.
        global_batch_size: Sequences of one optimizer step, all devices.
        windows: Training windows of one epoch; None before the data is open.

    Returns:
        None when only the data can tell (``num_epochs`` alone, ``windows`` unknown).

    Raises:
        ValueError: No limit is set, or the run would have no step.
    """
    limits: list[tuple[int, str]] = []
    if max_steps is not None:
        limits.append((max_steps, f"max_steps {max_steps}"))
    if max_tokens is not None:
        limits.append(
            (
                max_tokens // tokens_per_step,
                f"max_tokens {max_tokens} // tokens_per_step {tokens_per_step}",
            )
        )
    if num_epochs is not None and windows is not None:
        limits.append(
            (
                int(num_epochs * windows) // global_batch_size,
                f"num_epochs {num_epochs:g} x {windows} windows // {global_batch_size}",
            )
        )
    if not limits:
        if num_epochs is None:
            raise ValueError("max_steps, max_tokens and num_epochs are all null; set one of them")
        return None
    steps, words = min(limits)
    if steps < 1:
        raise ValueError(f"{words} = 0 steps; the run would be empty")
    others = "".join(f"; {text} = {value}" for value, text in limits if text != words)
    return Length(steps, f"steps {steps} = {words}{others}")


def check_devices(distributed: Mapping[str, Any], available: int) -> int:
    """The data-parallel size for ``available`` processes (or devices).

    Raises:
        ValueError: The sizes asked for need another number of devices.
    """
    tensor = distributed["tensor_parallel_size"]
    data = distributed["data_parallel_size"] or max(1, available // tensor)
    if data * tensor != available:
        raise ValueError(
            f"Total devices ({data * tensor}) must match available GPUs ({available}): "
            f"data_parallel_size {data} x tensor_parallel_size {tensor}"
        )
    return data


def steps_of(cadence: int | float | None, max_steps: int) -> int | None:
    """A cadence in steps: whole numbers are steps, a fraction is that share of the run."""
    if cadence is None:
        return None
    return max(1, round(cadence * max_steps)) if cadence < 1 else int(cadence)


def solve_schedule(schedule: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """The keys of a schedule, every ``X_steps`` that is null worked out from its ``X_fraction``.

    Raises:
        ValueError: The parts are longer than the run, or one that holds another is shorter.
    """
    solved = {k: v for k, v in schedule.items() if k != "name" and not k.endswith("_fraction")}
    for key in [k for k in schedule if k.endswith("_fraction")]:
        steps = key.replace("_fraction", "_steps")
        if solved[steps] is None:
            solved[steps] = round((schedule[key] or 0) * max_steps)
    parts = {key: value for key, value in solved.items() if key in ("warmup_steps", "decay_steps")}
    if sum(parts.values()) > max_steps:
        words = " + ".join(f"{key} {value}" for key, value in parts.items())
        raise ValueError(f"lr_scheduler: {words} are more than the run's {max_steps} steps")
    warmup, stable = solved.get("warmup_steps", 0), solved.get("stable_steps")
    if stable is not None and not warmup <= stable <= max_steps:
        raise ValueError(
            f"lr_scheduler: stable_steps {stable} have to hold warmup_steps {warmup} and to end"
            f" within the run's {max_steps} steps"
        )
    return solved


@dataclass(frozen=True)
class Derived:
    """Every number of a run that its config leaves to be worked out; saved in resolved.yaml."""

    world_size: int
    batch_size: int
    global_batch_size: int
    accumulation_steps: int
    context_length: int
    tokens_per_step: int
    max_steps: int
    total_tokens: int
    windows: int
    eval_batch_size: int
    log_interval: int
    eval_interval: int | None
    diagnostics_interval: int | None
    save_interval: int | None
    data_seed: int
    divergence_loss: float
    schedule: dict[str, Any]
    arithmetic: list[str]


def derive(config: Config, *, world_size: int, windows_of: Callable[[int], int]) -> Derived:
    """Works out batch, length, cadences and schedule of a run on opened data.

    Args:
        config: A checked configuration.
        world_size: Processes that train it together.
        windows_of: Context length -> training windows of one epoch.

    Raises:
        ValueError: The numbers contradict each other, now that devices and data are known.
    """
    training, logging = config.training.training_params, config.logging.logging_params
    model = config.model.config
    batch = solve_batch(
        batch_size=training.batch_size,
        global_batch_size=training.global_batch_size,
        accumulation_steps=training.accumulation_steps,
        data_parallel_size=check_devices(vars(config.distributed), world_size),
    )
    context = training.context_length or model["block_size"]
    windows = windows_of(context)
    tokens_per_step = batch.global_batch_size * context
    length = solve_length(
        max_steps=training.max_steps,
        max_tokens=training.max_tokens,
        num_epochs=training.num_epochs,
        tokens_per_step=tokens_per_step,
        global_batch_size=batch.global_batch_size,
        windows=windows,
    )
    assert length is not None
    steps = length.max_steps
    schedule = solve_schedule(config.lr_scheduler, steps)
    epochs = steps * batch.global_batch_size / max(1, windows)
    return Derived(
        world_size=world_size,
        batch_size=batch.batch_size,
        global_batch_size=batch.global_batch_size,
        accumulation_steps=batch.accumulation_steps,
        context_length=context,
        tokens_per_step=tokens_per_step,
        max_steps=steps,
        total_tokens=steps * tokens_per_step,
        windows=windows,
        eval_batch_size=logging.eval_batch_size or batch.batch_size,
        log_interval=steps_of(logging.log_interval, steps) or 1,
        eval_interval=steps_of(logging.eval_interval, steps),
        diagnostics_interval=steps_of(logging.diagnostics_interval, steps),
        save_interval=steps_of(config.checkpoint.save_interval, steps),
        data_seed=training.seed if training.data_seed is None else training.data_seed,
        divergence_loss=training.divergence_loss or 10 * math.log(model["vocab_size"]),
        schedule=schedule,
        arithmetic=[
            str(batch),
            f"tokens_per_step {tokens_per_step} = global_batch_size {batch.global_batch_size}"
            f" x context_length {context}",
            length.arithmetic,
            f"tokens {steps * tokens_per_step} = {epochs:.3g} epochs of {windows} windows",
            f"schedule {config.lr_scheduler['name']}: "
            + ", ".join(f"{key} {value}" for key, value in schedule.items()),
        ],
    )
