"""The sweep file that repeats runs, made from what was typed for each of them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

SEED = "training.training_params.seed"
LEFT_OUT = ("paths.", "cluster.", "hydra.", "cluster=", "hydra/")
"""Where a run lay and on what it ran, which is no part of what it was."""

Block = dict[str, list[Any]]
"""Every choice of every key; the runs are their product."""


def sweep_file(overrides: Iterable[str]) -> tuple[str, list[str]]:
    """A sweep file with exactly the runs that were typed as ``overrides``.

    Args:
        overrides: Of a run each, quoted for a shell.

    Returns:
        Its text, empty without a run; and the overrides that a sweep file cannot say, such as
        a key that is removed.
    """
    blocks: list[Block] = []
    unsaid = []
    for line in overrides:
        point = _point(line)
        if point is None:
            unsaid.append(line)
        elif {key: [value] for key, value in point.items()} not in blocks:
            blocks.append({key: [value] for key, value in point.items()})
    if not blocks:
        return "", unsaid
    keys = dict.fromkeys([SEED, *(key for block in blocks for key in block)])
    for key in keys:
        if key != "optimizer":  # a block of its own for each, as people write them
            blocks = _merged(blocks, key)
    first, *others = blocks
    shared = [key for key in first if all(other.get(key) == first[key] for other in others)]
    document = {key: _spec(first[key]) for key in shared}
    apart = [{key: _spec(block[key]) for key in block if key not in shared} for block in blocks]
    return _text(document, apart if len(blocks) > 1 else []), unsaid


def _point(line: str) -> dict[str, Any] | None:
    """The values of one run by key; None where a sweep file cannot say them."""
    point = {}
    for override in shlex.split(line):
        if override.startswith(LEFT_OUT):
            continue
        key, is_set, text = override.partition("=")
        if not is_set or key.startswith(("~", "++")) or text.startswith("{"):
            return None
        point[key] = value_of(text)
    return point


def value_of(text: str) -> Any:
    """What the value of an override means, as Hydra's grammar has it."""
    try:
        return yaml.load(_QUOTED.sub(_as_json, text), Loader=_Loader) if text else ""
    except yaml.YAMLError:
        return text


_QUOTED = re.compile(r"""(['"])((?:\\.|(?!\1)[^\\])*)\1""")


def _as_json(quoted: re.Match[str]) -> str:
    """A text that Hydra's quotes enclose in those of JSON, which YAML reads as well."""
    # backslashes count before a quote and at the end alone, and are twice as many there
    counting = rf"\\+(?={quoted[1]}|\Z)"
    text = re.sub(counting, lambda run: run[0][: len(run[0]) // 2], quoted[2])
    return json.dumps(text, ensure_ascii=False)


class _Loader(yaml.SafeLoader):
    """YAML whose plain words mean what they mean to Hydra: ``off`` and 2025-01-01 are texts."""


_Loader.yaml_implicit_resolvers = {}


for _kind, _words in {
    "bool": r"true|false",
    "null": r"null",
    "int": r"[-+]?(0|[1-9](_?\d)*)",
    "float": r"[-+]?(([\d_]+\.|[\d_]*\.\d[\d_]*)(e[-+]?\d+)?|\d[\d_]*e[-+]?\d+|inf|nan)",
}.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?i:{_words})\Z"), None
    )


def _merged(blocks: list[Block], key: str) -> list[Block]:
    """Blocks that differ in nothing but the choices of ``key`` as one."""
    merged: dict[str, Block] = {}
    for block in blocks:
        rest = {name: choices for name, choices in block.items() if name != key}
        place = json.dumps([key in block, rest], sort_keys=True)
        if place in merged and key in block:
            merged[place][key] += block[key]
        else:
            merged[place] = {name: list(choices) for name, choices in block.items()}
    return list(merged.values())


def _spec(choices: list[Any]) -> Any:
    """Choices as a sweep file has them: a single one that is no list stands alone."""
    (first, *others) = choices
    return first if not others and not isinstance(first, list) else choices


def _text(document: Mapping[str, Any], blocks: list[dict[str, Any]]) -> str:
    """JSON with a block per line."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    if blocks:
        inner = ",\n".join(f"  {json.dumps(block)}" for block in blocks)
        lines.append(f' "$each": [\n{inner}\n ]')
    return "{\n" + ",\n".join(lines) + "\n}\n"
