"""Every rule a configuration must keep, and every message about one that does not.

All problems are collected before anything is said. A message says what was given (where,
key, value), what is accepted, and the nearest valid choice.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from gptopt import layout
from gptopt.config import resolve, schema, solver
from gptopt.config.checker import Checker
from gptopt.config.data_rules import cross_data, data_node
from gptopt.config.problems import (
    SECRET,
    SECRET_VARIABLE,
    TRACKERS,
    ConfigError,
    Problem,
    nearest,
    secret,
    show,
)
from gptopt.config.resolvers import device_count
from gptopt.config.types import Count, Fraction

SCHEDULES = resolve.PACKAGE / "schedules.py"
NOT_MEANT = (TypeError, KeyError, AttributeError, ValueError, ArithmeticError)
"""What a rule raises that meets a value it was not written for."""
RESUME_WORDS = ("auto", "latest", "best")


def check(
    raw: Mapping[str, Any],
    where: Callable[[str], str] = lambda key: "",
    known: Iterable[Problem] = (),
) -> schema.Config:
    """Turns resolved, untyped nodes into a checked ``Config``.

    Args:
        raw: Node name to plain Python values, interpolations resolved (or ``UNRESOLVED``).
        where: Dotted key -> the file or command line that gave its value.
        known: Problems found before; the report names them first.

    Raises:
        ConfigError: With every problem found.
    """
    checker = Checker(raw, where, known)
    values = check_nodes(checker)
    for rule in CROSS_RULES:
        apply(rule, checker)
    if checker.problems:
        raise ConfigError(checker.problems)
    return schema.Config(**values)


def check_nodes(checker: Checker) -> dict[str, Any]:
    """Every node with its values in their types; all of ``check`` but the rules between keys."""
    hints = typing.get_type_hints(schema.Config, include_extras=True)
    fixed = {key: kind for key, kind in hints.items() if key not in ("run_id", "source")}
    values = checker.keys("", {"force": False, **checker.raw}, fixed)
    values["optimizer"] = _optimizer(checker)
    values["model"] = _model(checker)
    values["data"] = data_node(checker)
    values["lr_scheduler"] = _schedule(checker)
    _trackers(checker)
    _secrets(checker, checker.raw)
    return values


def apply(rule: Callable[[Checker], None], checker: Checker) -> None:
    """Holds a config against a rule between keys."""
    try:
        rule(checker)
    except NOT_MEANT:
        if not checker.problems:  # otherwise it met a value already reported
            raise


def _optimizer(checker: Checker) -> schema.Optimizer | None:
    path = "optimizer.optimizer_params"
    params = checker.get(path)
    if not isinstance(params, Mapping):
        return None
    keys = checker.part("optim", f"{path}.name", params.get("name"))
    if keys is None:
        return None
    common = typing.get_type_hints(schema.OptimizerCommon, include_extras=True)
    if "aux" not in params:
        del common["aux"]
    checked = checker.keys(path, params, keys | common)
    if isinstance(checked.get("aux"), schema.Aux):
        checked["aux"] = dataclasses.asdict(checked["aux"])
    return schema.Optimizer(checked)


def optimizer_problems(params: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the keys and values of a node optimizer_params, without interpolations."""
    checker = Checker({"optimizer": {"optimizer_params": params}}, lambda key: "", ())
    _optimizer(checker)
    return checker.problems


def _model(checker: Checker) -> schema.Model | None:
    model = checker.get("model")
    if not isinstance(model, Mapping):
        return None
    keys = checker.part("models", "model.family", model.get("family"))
    if keys is None:
        return None
    config = checker.keys("model.config", model.get("config"), keys)
    return schema.Model(str(model.get("name")), str(model.get("family")), config)


def _schedule(checker: Checker) -> dict[str, Any]:
    schedule = checker.get("lr_scheduler")
    if not isinstance(schedule, Mapping):
        return {}
    name, known = schedule.get("name"), resolve.functions(SCHEDULES)
    names = [n for n in known if "max_steps" in resolve.keys_of(SCHEDULES, n)]
    if name not in names:
        hint = f"{nearest(str(name), names)} There are: {', '.join(names)}."
        checker.report("lr_scheduler.name", f"lr_scheduler.name={show(name)} is unknown.{hint}")
        return {}
    return checker.keys("lr_scheduler", schedule, schedule_keys(name))


def schedule_keys(name: str) -> dict[str, Any]:
    """Key -> type of schedule ``name`` in a config: each ``X_steps`` brings ``X_fraction``."""
    keys: dict[str, Any] = {"name": str}
    for key, kind in resolve.keys_of(SCHEDULES, name).items():
        if key.endswith("_steps") and key != "max_steps":
            keys |= {key: Count | None, key.replace("_steps", "_fraction"): Fraction | None}
        elif key != "max_steps":
            keys[key] = kind
    return keys


def _trackers(checker: Checker) -> None:
    for name, settings in (checker.get(TRACKERS) or {}).items():
        path = f"{TRACKERS}.{name}"
        keys = checker.part("tracking", path, name)
        if keys is not None:
            checker.keys(path, settings, keys)


def _secrets(checker: Checker, node: Mapping[str, Any], path: str = "") -> None:
    for key, value in node.items():
        full = f"{path}.{key}" if path else str(key)
        if SECRET.search(str(key)):
            checker.report(full, secret(full).message)
        if isinstance(value, Mapping):
            _secrets(checker, value, full)


def _cross_lengths(checker: Checker) -> None:
    training, path = checker.get("training.training_params"), "training.training_params"
    block, context = checker.get("model.config.block_size"), training["context_length"]
    if block and context and context > block:
        checker.report(
            f"{path}.context_length",
            f"{path}.context_length={context} is longer than model.config.block_size={block};"
            f" at most {block} fits.",
        )
    data_parallel = checker.get("distributed.data_parallel_size") or 1
    sizes = {k: training[k] for k in ("batch_size", "global_batch_size", "accumulation_steps")}
    limits = {k: training[k] for k in ("max_steps", "max_tokens", "num_epochs")}
    try:
        batch = solver.solve_batch(**sizes, data_parallel_size=data_parallel)
        length = solver.solve_length(
            **limits,
            tokens_per_step=batch.global_batch_size * (context or block),
            global_batch_size=batch.global_batch_size,
            windows=None,
        )
    except ValueError as error:
        checker.report(path, f"{path}: {error}.")
        return
    try:
        if length is not None:
            solver.solve_schedule(checker.get("lr_scheduler"), length.max_steps)
    except ValueError as error:
        checker.report("lr_scheduler", f"{error}.")


def _cross_devices(checker: Checker) -> None:
    distributed, path = checker.get("distributed"), "distributed"
    tensor, data = distributed["tensor_parallel_size"], distributed["data_parallel_size"]
    if tensor > 1:
        try:
            solver.check_devices(distributed, device_count() or 1)
        except ValueError as error:
            checker.report(path, f"{error}.")
        checker.report(
            f"{path}.tensor_parallel_size",
            f"{path}.tensor_parallel_size={tensor}: tensor parallelism is not built yet;"
            " it takes 1.",
        )
    if distributed["strategy"] == "single" and (data or 1) > 1:
        checker.report(
            f"{path}.data_parallel_size",
            f"{path}.data_parallel_size={data} contradicts {path}.strategy='single', which"
            " trains on one device.",
        )


def _cross_places(checker: Checker) -> None:
    profile = checker.get("profile")
    start, end = profile["start"], profile["end"]
    if (start is None) != (end is None) or (end or 1) <= (start or 0):
        checker.report(
            "profile.end",
            f"profile.end={show(end)} does not come after profile.start={show(start)};"
            " set both, or neither.",
        )
    for path in (
        "model.name",
        "data.name",
        "paths.data_root",
        "paths.output_dir",
        "paths.run_name",
    ):
        text = checker.get(path)
        if isinstance(text, str) and ("\n" in text or not text.strip()):
            checker.report(path, f"{path}={show(text)}: it takes one line of text, not empty.")
    deadline = checker.get("cluster.deadline")
    if isinstance(deadline, str):
        try:
            datetime.fromisoformat(deadline)
        except ValueError:
            checker.report(
                "cluster.deadline",
                f"cluster.deadline={show(deadline)}: it takes a unix time, or a date and time"
                " such as 2026-01-31T12:00.",
            )


def _cross_model(checker: Checker) -> None:
    config = checker.get("model.config")
    heads, width, path = config.get("n_head"), config.get("n_embd"), "model.config"
    if not heads or not width:
        return
    if width % heads and not config.get("head_dim"):
        divisor = solver.largest_divisor(width, heads)
        checker.report(
            f"{path}.n_head",
            f"{path}.n_head={heads} does not divide n_embd={width}; {divisor} does.",
        )
        return
    groups, head_dim = config.get("n_kv_head") or heads, config.get("head_dim") or width // heads
    if heads % groups:
        divisor = solver.largest_divisor(heads, groups)
        checker.report(
            f"{path}.n_kv_head",
            f"{path}.n_kv_head={groups} does not divide n_head={heads}; {divisor} does.",
        )
    if config.get("pos") == "rope":
        rotated = config.get("rope_dim") or head_dim
        if rotated % 2 or rotated > head_dim:
            checker.report(
                f"{path}.rope_dim",
                f"{path}.rope_dim={rotated}: it takes an even number, at most the {head_dim}"
                f" dimensions of a head (n_embd {width} / n_head {heads}).",
            )


def _cross_width(checker: Checker) -> None:
    path, name = "model.config.mup_base_n_embd", checker.get("optimizer.optimizer_params.name")
    base = checker.get("model.config").get("mup_base_n_embd")
    if base is not None and not _has_width_rule(name):
        names = ", ".join(filter(_has_width_rule, resolve.part_names("optim")))
        checker.report(
            path,
            f"{path}={show(base)}: how the lr of optimizer_params.name={show(name)} follows the"
            f" width is not known. It takes null, or one of {names}.",
        )


def _has_width_rule(optimizer: str) -> bool:
    file = resolve.find_part("optim", optimizer)
    return file is not None and resolve.has_width_rule(file)


def _cross_schedule(checker: Checker) -> None:
    schedule = checker.get("lr_scheduler")
    if schedule.get("decay_shape") == "exponential" and schedule["min_lr_ratio"] <= 0:
        checker.report(
            "lr_scheduler.min_lr_ratio",
            f"lr_scheduler.min_lr_ratio={schedule['min_lr_ratio']:g}: an exponential decay never"
            " reaches 0; it takes a number above 0.",
        )


def _cross_checkpoint(checker: Checker) -> None:
    checkpoint, interval = checker.get("checkpoint"), checker.get("logging.logging_params")
    by_val_loss = checkpoint["keep_top_k"] and checkpoint["monitor"] == "val_loss"
    if by_val_loss and interval["eval_interval"] is None:
        checker.report(
            "checkpoint.keep_top_k",
            f"checkpoint.keep_top_k={checkpoint['keep_top_k']} ranks by val_loss, but"
            " logging.logging_params.eval_interval is null; set one or the other.",
        )
    resume = checkpoint["resume"]
    if isinstance(resume, str) and resume not in RESUME_WORDS and "/" not in resume:
        checker.report(
            "checkpoint.resume",
            f"checkpoint.resume={show(resume)}: it takes {', '.join(RESUME_WORDS)}, a step, or the"
            f" path of a checkpoint directory.{nearest(resume, RESUME_WORDS)}",
        )


def _cross_cluster(checker: Checker) -> None:
    backend, nodes = checker.get("cluster.backend"), checker.get("cluster.nodes")
    if backend != "disbatch" and nodes > 1:
        checker.report(
            "cluster.nodes",
            f"cluster.nodes={nodes}: with cluster.backend={backend} a run is one process on one"
            " node; it takes 1. cluster=slurm-disbatch spreads the runs of a sweep over nodes.",
        )
    for name in checker.get("cluster.env"):
        if SECRET_VARIABLE.search(str(name)):
            message = (
                f"cluster.env.{name}: a secret is not written into a config; export it before"
                " submitting, and jobs inherit it."
            )
            checker.report(f"cluster.env.{name}", message)


CROSS_RULES: tuple[Callable[[Checker], None], ...] = (
    _cross_model,
    _cross_width,
    _cross_lengths,
    cross_data,
    _cross_schedule,
    _cross_checkpoint,
    _cross_devices,
    _cross_places,
    _cross_cluster,
)
"""Rules between keys."""


def choices_of(group: str, config_dir: Any = layout.HYDRA_CONF) -> list[str]:
    """The options of a config group: its YAML files, with those of plugins."""
    roots = [config_dir, *resolve.plugin_configs()]
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})
