"""From override strings to one checked configuration; the command line and the Python API
both come through here.

    compose(["model=gpt2", "optimizer.optimizer_params.lr=3e-4"]) -> Config

Hydra composes the groups once for each distinct choice; the values of a run are then set
on a copy of that tree with Hydra's own rules, so a sweep of many points stays cheap.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptopt import layout
from gptopt.config import identity, resolvers
from gptopt.config.checks import ConfigError, Problem, check, choices_of, nearest, unknown_key
from gptopt.config.schema import Config, Source

resolvers.register()


def compose(
    overrides: Iterable[str] = (),
    *,
    config_dir: Path = layout.HYDRA_CONF,
    config_name: str = "config",
    origin: str = "command line",
) -> Config:
    """Composes and checks a configuration exactly as ``python run_hydra.py`` does.

    Args:
        overrides: As typed on the command line, ``+force`` among them.
        config_dir: The tree of YAML files.
        config_name: The top-level file in it.
        origin: Where the overrides came from, for messages.

    Raises:
        ConfigError: With every problem found.
    """
    texts = ["+force=true" if text == "+force" else text for text in overrides]
    parsed, problems = parse(texts, origin)
    groups = [o for o in parsed if is_group(o, config_dir)]
    problems += [p for o in groups if (p := _check_choice(o, config_dir, origin))]
    if problems:
        chosen = {p.key for p in problems}
        groups = [o for o in groups if o.key_or_group not in chosen]
    try:
        base = _base(config_dir, config_name, tuple(str(o.input_line) for o in groups))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([*problems, Problem("", _first_line(error), origin)]) from None
    tree = copy.deepcopy(base)
    for override in parsed:
        if override not in groups and not is_group(override, config_dir):
            problems += _set(tree, override, origin)
    hydra_node = tree.hydra
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    choices = OmegaConf.to_container(hydra_node.runtime.choices)
    assert isinstance(choices, dict)
    given = {o.key_or_group for o in parsed if o not in groups}

    def where(key: str) -> str:
        if any(key == name or key.startswith(f"{name}.") for name in given):
            return origin
        group = key.split(".")[0]
        choice = choices.get(group)
        return f"{config_dir.name}/{f'{group}/{choice}' if choice else config_name}.yaml"

    raw, unresolved = _resolve(tree, where)
    if unresolved:
        raise ConfigError([*problems, *unresolved])
    try:
        config = check(raw, where)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    config.run_id = identity.run_id(raw)
    digits = config.run_id[: identity.DIGITS]
    if not config.paths.run_name.endswith(digits):
        config.paths.run_name = f"{layout.safe_name(config.paths.run_name)[:110]}-{digits}"
    config.source = Source(
        overrides=[t for t in texts if not t.startswith("+force=")],
        composed=OmegaConf.to_yaml(tree),
        hydra=OmegaConf.to_yaml(OmegaConf.create({"hydra": OmegaConf.to_container(hydra_node)})),
    )
    return config


def parse(texts: Sequence[str], origin: str) -> tuple[list[Override], list[Problem]]:
    """The overrides that can be read, and a problem for each that cannot."""
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            message = f"{text!r} is not an override (key=value): {_first_line(error)}"
            problems.append(Problem(text, message, origin))
    return parsed, problems


@dataclass(frozen=True)
class Arguments:
    """The parts of a command line that gptopt checks before Hydra acts on it."""

    overrides: list[str]
    multirun: bool
    config_dir: Path
    config_name: str
    only_shows: bool


def arguments(argv: Sequence[str]) -> Arguments:
    """Splits a command line of run_hydra.py as Hydra itself does."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    known, _ = parser.parse_known_args(list(argv))
    directory = Path(known.config_path or known.config_dir or layout.HYDRA_CONF)
    shown = ("help", "hydra_help", "cfg", "info", "shell_completion", "experimental_rerun")
    return Arguments(
        overrides=known.overrides,
        multirun=known.multirun,
        config_dir=directory if directory.is_absolute() else Path.cwd() / directory,
        config_name=known.config_name or "config",
        only_shows=any(getattr(known, name, None) for name in shown),
    )


def points(overrides: Sequence[str], origin: str = "command line") -> list[list[str]]:
    """The runs of a ``-m`` command line: the product of its sweeps, in Hydra's order.

    Raises:
        ConfigError: An override cannot be read.
    """
    import itertools

    parsed, problems = parse(
        ["+force=true" if text == "+force" else text for text in overrides], origin
    )
    if problems:
        raise ConfigError(problems)
    axes = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([str(override.input_line)])
    return [list(point) for point in itertools.product(*axes)]


def compose_all(
    runs: Sequence[Sequence[str]],
    *,
    config_dir: Path = layout.HYDRA_CONF,
    config_name: str = "config",
    origin: str = "command line",
) -> list[Config]:
    """Composes every run of a sweep.

    Raises:
        ConfigError: With the distinct problems of all runs.
    """
    configs, problems = [], []
    for number, overrides in enumerate(runs):
        place = origin if len(runs) == 1 else f"{origin}, run {number}"
        try:
            configs.append(
                compose(overrides, config_dir=config_dir, config_name=config_name, origin=place)
            )
        except ConfigError as error:
            problems += error.problems
    if problems:
        seen: dict[str, Problem] = {}
        for problem in problems:
            seen.setdefault(problem.message, problem)
        raise ConfigError(seen.values())
    return configs


def is_group(override: Override, config_dir: Path) -> bool:
    """Whether an override chooses an option of a group (``model=gpt2``, ``+logging=wandb``)."""
    key = override.key_or_group
    return key.startswith("hydra/") or (config_dir / key).is_dir()


def _check_choice(override: Override, config_dir: Path, origin: str) -> Problem | None:
    group = override.key_or_group
    if group.startswith("hydra/"):
        return None
    value, known = override.value(), choices_of(group, config_dir)
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and str(choice) not in known and "." not in str(choice):
            message = (
                f"{group}={choice}: there is no {config_dir.name}/{group}/{choice}.yaml."
                f"{nearest(str(choice), known)} There are: {', '.join(known)}."
            )
            return Problem(group, message, origin)
    return None


@functools.lru_cache(maxsize=256)
def _base(config_dir: Path, config_name: str, groups: tuple[str, ...]) -> DictConfig:
    directory = os.path.abspath(config_dir)
    if not (Path(directory) / f"{config_name}.yaml").is_file():
        raise ConfigError([Problem("", f"there is no {directory}/{config_name}.yaml")])
    with hydra.initialize_config_dir(directory, version_base=None):
        return hydra.compose(config_name, overrides=list(groups), return_hydra_config=True)


def _set(tree: DictConfig, override: Override, origin: str) -> list[Problem]:
    """Applies one value to the tree by Hydra's rules; says what is wrong with it."""
    key = override.key_or_group
    if override.is_sweep_override():
        text = f"{override.input_line}: a list of choices needs -m; for a list value write [a,b]."
        return [Problem(key, text, origin)]
    exists = OmegaConf.select(tree, key, default=_MISSING, throw_on_missing=False) is not _MISSING
    if not exists and not override.is_add() and not override.is_force_add():
        return [_unknown(tree, key, override.value(), origin)]
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], tree)
    except (HydraException, OmegaConfBaseException) as error:
        return [Problem(key, f"{override.input_line}: {_first_line(error)}", origin)]
    return []


_MISSING = object()


def _unknown(tree: DictConfig, key: str, value: Any, origin: str) -> Problem:
    """The problem of a key that does not exist, told at the deepest level that does."""
    parts, node = key.split("."), tree
    for depth, part in enumerate(parts):
        known = [str(name) for name in node if name != "hydra"]
        child = OmegaConf.select(node, part) if part in known else None
        if not isinstance(child, DictConfig):
            problem = unknown_key(".".join(parts[:depth]), ".".join(parts[depth:]), known, value)
            return Problem(key, problem.message, origin)
        node = child
    raise AssertionError(f"{key} exists")


def _resolve(tree: DictConfig, where: Any) -> tuple[dict[str, Any], list[Problem]]:
    raw: dict[str, Any] = {}
    problems = []
    for node in tree:
        key = str(node)
        try:
            raw[key] = OmegaConf.to_container(
                OmegaConf.masked_copy(tree, key), resolve=False, throw_on_missing=True
            )[key]  # type: ignore[call-overload, index]
            value = tree[key]
            raw[key] = (
                OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            )
        except (OmegaConfBaseException, ValueError) as error:
            full = str(getattr(error, "full_key", None) or key)
            problems.append(Problem(full, f"{full}: {_first_line(error)}", where(full)))
    return raw, problems


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
