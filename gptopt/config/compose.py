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
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptopt import layout
from gptopt.config import identity, resolve, resolvers
from gptopt.config.checks import check, choices_of
from gptopt.config.plain import plain, words
from gptopt.config.problems import SECRET, ConfigError, Problem, secret, unknown_key
from gptopt.config.schema import Config, Source
from gptopt.config.typed import check_choice, check_plus, is_group, parse, spelled_out
from gptopt.config.values import UNRESOLVED

OPEN = ("args.", "cluster.env.", "logging.trackers.", "data.sources.", "data.eval.", "data.test.")
"""Nodes that a user adds keys to and removes them from."""
CHOSEN_BY = {"optimizer.optimizer_params.name": "optimizer", "lr_scheduler.name": "lr_scheduler"}
"""Keys that name the option of a group; another name means other keys."""

resolvers.register()


class PluginConfigs(SearchPathPlugin):
    """Shows Hydra the YAML files of our plugins, after those of its own configuration tree."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra, also by the one of run_hydra.py, when it starts."""
        for directory in resolve.plugin_configs():
            search_path.append("gptopt-plugin", f"file://{directory}")


Plugins.instance().register(PluginConfigs)


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
    if isinstance(overrides, str):
        message = f"{overrides!r} is one text; it takes a list of them: [{overrides!r}]."
        raise ConfigError([Problem("", message, origin)])
    texts = spelled_out(overrides)
    resolve.check_plugins(tuple(resolve.plugin_directories()))
    made = draft(texts, config_dir=config_dir, config_name=config_name, origin=origin)
    raw, unresolved = made.values()
    config = check(raw, made.where, [*made.problems, *unresolved])
    config.run_id = identity.run_id(raw)
    config.paths.run_name = identity.run_name(config.paths.run_name, config.run_id)
    config.source = Source(
        overrides=[t for t in texts if not t.startswith("+force=")],
        composed=made.composed,
        hydra=made.hydra,
    )
    return config


@dataclass(frozen=True)
class Draft:
    """What Hydra makes of some overrides, before its values are looked at.

    Attributes:
        tree: Our nodes, with their interpolations.
        composed: The same as YAML.
        hydra: YAML of Hydra's own node.
        where: Dotted key -> the file or command line that gave its value.
        unknown: Groups whose option there is not: nothing more is said about these nodes.
        problems: What is wrong with the overrides.
    """

    tree: DictConfig
    composed: str
    hydra: str
    where: Callable[[str], str]
    unknown: set[str]
    problems: list[Problem]

    def values(self) -> tuple[dict[str, Any], list[Problem]]:
        """The nodes as plain values, and a problem for each that cannot be worked out."""
        raw, unresolved = plain(self.tree, self.where)
        return raw | dict.fromkeys(self.unknown & raw.keys(), UNRESOLVED), unresolved


def draft(
    texts: Sequence[str], *, config_dir: Path, config_name: str = "config", origin: str
) -> Draft:
    """Composes overrides that are ``spelled_out``.

    Raises:
        ConfigError: Hydra finds no configuration in them.
    """
    plugins = tuple(resolve.plugin_directories())
    parsed, problems = parse(texts, origin)
    groups = [o for o in parsed if is_group(o, config_dir)]
    values = [o for o in parsed if not is_group(o, config_dir)]
    wrong = [p for o in groups if (p := check_choice(o, config_dir, origin))]
    problems += wrong
    unknown = {p.key for p in wrong}  # nothing more is said about these nodes
    chosen = [o for o in groups if o.key_or_group not in unknown]
    try:
        base = _base(config_dir, config_name, tuple(str(o.input_line) for o in chosen), plugins)
    except YAMLError as error:  # names the file and the line
        raise ConfigError([*problems, Problem("", words(error))]) from None
    except (HydraException, OmegaConfBaseException) as error:
        listed = _base(config_dir, config_name, (), plugins).choices
        misplaced = [p for o in chosen if (p := check_plus(o, set(listed), origin))]
        unclear = [Problem("", words(error), origin)]
        raise ConfigError([*problems, *(misplaced or unclear)]) from None
    tree, hydra_text = copy.deepcopy(base.tree), base.hydra_text
    for_hydra = [o for o in values if o.key_or_group.split(".")[0] == "hydra"]
    for override in values:
        if override.key_or_group.split(".")[0] not in unknown and override not in for_hydra:
            problems += _set(tree, override, config_dir, origin)
    if for_hydra:
        hydra_tree = copy.deepcopy(base.hydra)
        problems += [p for o in for_hydra for p in _set(hydra_tree, o, config_dir, origin)]
        hydra_text = OmegaConf.to_yaml(hydra_tree)
    OmegaConf.set_struct(tree, False)
    given = {f"{o.key_or_group}." for o in values}

    def where(key: str) -> str:
        if any(f"{key}.".startswith(name) or name.startswith(f"{key}.") for name in given):
            return origin
        group = key.split(".")[0]
        choice = base.choices.get(group)
        return f"{config_dir.name}/{f'{group}/{choice}' if choice else config_name}.yaml"

    composed = OmegaConf.to_yaml(tree)
    problems += _secret_variables(composed, origin)
    return Draft(tree, composed, hydra_text, where, unknown, problems)


def for_sweeper(
    overrides: Sequence[str],
    *,
    config_dir: Path = layout.HYDRA_CONF,
    config_name: str = "config",
) -> dict[str, str]:
    """What Hydra has to be given in the place of some overrides of a ``-m`` command line.

    It composes a configuration for the sweep itself, in which every group that is swept has its
    default option, and applies all values to it that are not swept. One whose key only the
    swept options have becomes a sweep of one value, which it leaves to the runs:
    ``optimizer=muon,normuon optimizer.optimizer_params.aux.lr=0.01``.

    Args:
        overrides: ``spelled_out``, of runs that have been composed.
        config_dir: The tree of YAML files.
        config_name: The top-level file in it.
    """
    parsed = [o for o in parse(overrides, "command line")[0] if not o.is_sweep_override()]
    groups = tuple(str(o.input_line) for o in parsed if is_group(o, config_dir))
    tree = _base(config_dir, config_name, groups, tuple(resolve.plugin_directories())).tree
    late = [
        o
        for o in parsed
        if o.type == OverrideType.CHANGE
        and not is_group(o, config_dir)
        and not o.key_or_group.startswith("hydra.")
        and not _exists(tree, o.key_or_group)
    ]
    return {
        str(o.input_line): f"{o.key_or_group}=choice({o.get_value_element_as_str()})" for o in late
    }


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
    configs = []
    problems: dict[str, list[Problem]] = {}
    for number, overrides in enumerate(runs):
        place = f"{origin}, run {number}"
        try:
            configs.append(
                compose(overrides, config_dir=config_dir, config_name=config_name, origin=place)
            )
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem.message, []).append(problem)
    if problems:
        raise ConfigError(_in_short(same, len(runs), origin) for same in problems.values())
    return configs


def _in_short(same: list[Problem], runs: int, origin: str) -> Problem:
    """One problem of several runs; of all of them, when the number of a run says nothing."""
    if len(same) == runs and same[0].where.startswith(origin):
        return replace(same[0], where=origin)
    return same[0]


def _secret_variables(composed: str, origin: str) -> list[Problem]:
    names = re.findall(r"\$\{oc\.env:([^,}]+)", composed)
    return [replace(secret(f"${{oc.env:{n}}}"), where=origin) for n in names if SECRET.search(n)]


@dataclass(frozen=True)
class _Base:
    """What Hydra composes from a choice of groups: our nodes, and its own with their YAML."""

    tree: DictConfig
    hydra: DictConfig
    hydra_text: str
    choices: dict[Any, Any]


@functools.lru_cache(maxsize=256)
def _base(
    config_dir: Path, config_name: str, groups: tuple[str, ...], plugins: tuple[Path, ...]
) -> _Base:
    directory = os.path.abspath(config_dir)
    if not (Path(directory) / f"{config_name}.yaml").is_file():
        raise ConfigError([Problem("", f"there is no {directory}/{config_name}.yaml")])
    outer = GlobalHydra.instance().hydra  # a launcher's own, inside a job of -m
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(directory, version_base=None):
            tree = hydra.compose(config_name, overrides=list(groups), return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = outer
    choices = OmegaConf.to_container(tree.hydra.runtime.choices)
    assert isinstance(choices, dict)
    hydra_tree = OmegaConf.create({"hydra": OmegaConf.to_container(tree.hydra)})
    with open_dict(tree):
        del tree["hydra"]
    OmegaConf.set_struct(hydra_tree, True)
    return _Base(tree, hydra_tree, OmegaConf.to_yaml(hydra_tree), choices)


def _set(tree: DictConfig, override: Override, config_dir: Path, origin: str) -> list[Problem]:
    """Applies one value to the tree by Hydra's rules; says what is wrong with it."""
    key = override.key_or_group
    if override.is_sweep_override():
        text = f"{override.input_line}: a list of choices needs -m; for a list value write [a,b]."
        return [Problem(key, text, origin)]
    if not _exists(tree, key) and not override.is_add() and not override.is_force_add():
        value = ... if override.is_delete() else override.value()
        return [_unknown(tree, key, value, origin)]
    if override.is_delete() and not key.startswith(OPEN):
        text = f"~{key}: a run needs all of its keys; change the value instead."
        return [Problem(key, text, origin)]
    group = CHOSEN_BY.get(key)
    if group and override.value() != OmegaConf.select(tree, key):
        option = str(override.value())
        if option in choices_of(group, config_dir):
            text = f"{key}={option}: write {group}={option} instead; its settings come with it."
            return [Problem(key, text, origin)]
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], tree)
    except (HydraException, OmegaConfBaseException) as error:
        return [Problem(key, f"{override.input_line}: {words(error)}", origin)]
    return []


def _exists(tree: DictConfig, key: str) -> bool:
    """Whether ``key`` is there, if only as ``???``."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(tree, parent, throw_on_resolution_failure=False) if parent else tree
    if isinstance(node, ListConfig):
        return last.isdecimal() and int(last) < len(node)
    return isinstance(node, DictConfig) and last in node.keys()  # noqa: SIM118 ("in node": no ???)


def _unknown(tree: DictConfig, key: str, value: Any, origin: str) -> Problem:
    """The problem of a key that does not exist, told at the deepest level that does."""
    parts, node = key.split("."), tree
    alike = sorted((full for full in _keys(tree) if full.endswith(f".{parts[-1]}")), key=len)
    for depth, part in enumerate(parts):
        known = [str(name) for name in node if name != "hydra" or parts[0] == "hydra"]
        child = OmegaConf.select(node, part) if part in known else None
        if not isinstance(child, DictConfig):
            path, rest = ".".join(parts[:depth]), ".".join(parts[depth:])
            problem = unknown_key(path, rest, known, value, alike[:1])
            return Problem(key, problem.message, origin)
        node = child
    raise AssertionError(f"{key} exists")


def _keys(node: DictConfig, path: str = "") -> Iterator[str]:
    for key in node:
        full = f"{path}.{key!s}" if path else str(key)
        child = node._get_node(key)
        if full != "hydra":
            yield full
        if isinstance(child, DictConfig) and full != "hydra" and not child._is_none():
            yield from _keys(child, full)
