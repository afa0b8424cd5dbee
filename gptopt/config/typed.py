"""What is typed behind ``python run_hydra.py``: read and looked at, not yet applied."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from gptopt import layout
from gptopt.config.checks import choices_of
from gptopt.config.plain import words
from gptopt.config.problems import ConfigError, Problem, nearest

SEVERAL = ("logging", "experiment")
"""Groups that take more than one option, as in ``+logging=[wandb,other]``."""


@dataclass(frozen=True)
class Arguments:
    """The parts of a command line that gptopt checks before Hydra acts on it."""

    overrides: list[str]
    multirun: bool
    config_dir: Path
    config_name: str
    only_shows: bool


def arguments(argv: Sequence[str]) -> Arguments:
    """Splits a command line of run_hydra.py as Hydra itself does.

    Raises:
        ConfigError: It asks for what run_hydra.py does not do.
    """
    known, _ = get_args_parser().parse_known_args(list(argv))
    if known.config_dir:
        raise ConfigError(
            [
                Problem(
                    "--config-dir",
                    f"--config-dir={known.config_dir}: put the file into the folder of its group"
                    " in hydra_conf/, or give a whole tree with --config-path.",
                )
            ]
        )
    shown = ("help", "hydra_help", "cfg", "info", "shell_completion", "experimental_rerun")
    return Arguments(
        overrides=known.overrides,
        multirun=known.multirun,
        config_dir=layout.PROJECT / (known.config_path or layout.HYDRA_CONF),
        config_name=known.config_name or "config",
        only_shows=any(getattr(known, name, None) for name in shown),
    )


def spelled_out(texts: Iterable[str]) -> list[str]:
    """Overrides in Hydra's words: ``+force`` is ``+force=true``, ``+experiment=X`` needs no +."""
    short = {"+force": "+force=true"}
    return [re.sub(r"^\+experiment=", "experiment=", short.get(text, text)) for text in texts]


def overrides_first(argv: Sequence[str]) -> list[str]:
    """A command line whose overrides stand on both sides of a flag, as in ``a=1 -m b=2,3``, with
    all of them in front: Hydra's parser takes one row of them.
    """
    known, rest = get_args_parser().parse_known_args(list(argv))
    if not rest or any(text.startswith("-") for text in rest):  # that one Hydra answers
        return list(argv)
    overrides = [*known.overrides, *rest]
    return [*overrides, *(text for text in argv if text not in overrides)]


def parse(texts: Sequence[str], origin: str) -> tuple[list[Override], list[Problem]]:
    """The overrides that can be read, and a problem for each that cannot."""
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in texts:
        try:
            override = parser.parse_override(text)
            if not override.key_or_group:
                raise HydraException("it has no key")
            parsed.append(override)
        except HydraException as error:
            reason = words(error).split(" expecting {")[0]
            hint = "quote special characters: key='a b'" if "=" in text else "write key=value"
            message = f"{text!r} cannot be read: {reason}; {hint}."
            problems.append(Problem(text, message, origin))
    return parsed, problems


def points(
    overrides: Sequence[str],
    *,
    config_dir: Path = layout.HYDRA_CONF,
    origin: str = "command line",
) -> list[list[str]]:
    """The runs of a ``-m`` command line: the product of its sweeps, in Hydra's order.

    Raises:
        ConfigError: An override cannot be read, or says nothing that can be listed.
    """
    parsed, problems = parse(spelled_out(overrides), origin)
    axes: list[list[str]] = []
    for override in parsed:
        key, value, text = override.get_key_element(), override.value(), str(override.input_line)
        if isinstance(value, Glob):
            known = choices_of(override.key_or_group, config_dir)
            axes.append([f"{key}={name}" for name in value.filter(known)])
            if not axes[-1]:
                message = f"{text}: it fits none of: {', '.join(known)}."
                problems.append(Problem(text, message, origin))
        elif isinstance(value, IntervalSweep):
            message = f"{text}: an interval is for hydra/sweeper plugins; give values or a range."
            problems.append(Problem(text, message, origin))
        elif override.is_sweep_override():
            axes.append([f"{key}={choice}" for choice in override.sweep_string_iterator()])
        else:
            axes.append([text])
    if problems:
        raise ConfigError(problems)
    return [list(point) for point in itertools.product(*axes)]


def is_group(override: Override, config_dir: Path) -> bool:
    """Whether an override chooses an option of a group (``model=gpt2``, ``+logging=wandb``)."""
    key = override.key_or_group
    return key.startswith("hydra/") or (config_dir / key).is_dir()


def check_choice(override: Override, config_dir: Path, origin: str) -> Problem | None:
    """What is wrong with the option that an override chooses."""
    group = override.key_or_group
    if group.startswith("hydra/") or override.is_delete():
        return None
    if override.is_sweep_override():
        return Problem(group, f"{override.input_line}: several options need -m.", origin)
    value, known = override.value(), choices_of(group, config_dir)
    for choice in value if isinstance(value, list) else [value]:
        name = "null" if choice is None else str(choice)
        if name.removesuffix(".yaml") not in known:
            message = (
                f"{group}={name}: there is no {config_dir.name}/{group}/{name}.yaml."
                f"{nearest(name, known)} There are: {', '.join(known)}."
            )
            return Problem(group, message, origin)
    if isinstance(value, list) and group not in SEVERAL:
        message = f"{override.input_line}: it takes one option; {group}=a,b with -m sweeps."
        return Problem(group, message, origin)
    return None


def check_plus(override: Override, listed: set[str], origin: str) -> Problem | None:
    """A group that the config has an option of already takes no ``+``; the others need one."""
    group, added = override.key_or_group, override.is_add() or override.is_force_add()
    if group.startswith("hydra/") or added != (group in listed):
        return None
    right = f"{'' if added else '+'}{group}={override.get_value_element_as_str()}"
    return Problem(group, f"{override.input_line}: write {right} instead.", origin)
