"""From a tree with interpolations to plain values, with words for those that fail."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gptopt.config.problems import Problem, show
from gptopt.config.values import UNRESOLVED


def plain(tree: DictConfig, where: Callable[[str], str]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of ``tree``; ``UNRESOLVED`` stands for each that cannot be worked out.

    Args:
        tree: Composed nodes.
        where: Dotted key -> the file or command line that gave its value.

    Returns:
        The values, and a problem for each cause: one variable that is not set is told once,
        though the run's name fails for it too.
    """
    try:
        values = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
        return cast(dict[str, Any], values), []
    except OmegaConfBaseException:  # at the first that fails; now find all of them
        causes: dict[str, Problem] = {}
        return _values(tree, where, causes), list(causes.values())


def _values(
    tree: DictConfig, where: Callable[[str], str], causes: dict[str, Problem]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in tree:
        try:
            value = tree[key]
            if isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            value = UNRESOLVED
            full = str(tree._get_full_key(key))
            node = cast(Node, tree._get_node(key))
            is_missing = isinstance(error, MissingMandatoryValue)
            cause = f"Missing mandatory value: {full}" if is_missing else words(error)
            causes.setdefault(cause, failure(full, node, error, where))
        if isinstance(value, DictConfig):
            value = _values(value, where, causes)
        values[str(key)] = value
    return values


def failure(path: str, node: Node, error: Exception, where: Callable[[str], str]) -> Problem:
    """The problem of a value that cannot be worked out."""
    message = f"{path}={show(node._value())}: {words(error)}."
    if isinstance(error, MissingMandatoryValue):
        message = f"{path} has no value yet; give it one: {path}=..."
    return Problem(path, message, where(path))


def words(error: Exception) -> str:
    """What an error of Hydra, OmegaConf or YAML says, without its surroundings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    apart = ("Config search path", "See https", "full_key:", "object_type=", "reference_type=")
    text = " ".join(itertools.takewhile(lambda line: not line.startswith(apart), lines))
    text = re.sub(r"(\w+ (raised )?while (resolving interpolation|composing config): ?)+", "", text)
    return text.strip('". ') or type(error).__name__
