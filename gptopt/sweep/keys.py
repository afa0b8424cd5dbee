"""Keys of a sweep file -> config groups and dotted paths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from gptopt import layout
from gptopt.config.problems import nearest

PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)+", re.ASCII)
ALIASES = Path(__file__).with_name("aliases.json")


@cache
def aliases() -> Mapping[str, str]:
    """Short name -> config group or dotted path."""
    return json.loads(ALIASES.read_text(encoding="utf-8"))


@cache
def groups() -> Sequence[str]:
    """The config groups a sweep may choose from: the folders of hydra_conf."""
    folders = [path.name for path in layout.HYDRA_CONF.iterdir() if path.is_dir()]
    return sorted(set(folders) - {"hydra", "cluster"})


def target(key: str) -> str:
    """The group or dotted path that a key of a sweep file stands for.

    Raises:
        ValueError: It stands for nothing, or for what is no business of a sweep file.
    """
    plain = key.lstrip("+")
    prefix = key[: len(key) - len(plain)]
    parts = re.split(r"[./@]", plain)
    if key.startswith("~"):
        raise ValueError("a key cannot be removed; set it to null where that is allowed.")
    if parts[0] in ("hydra", "cluster"):
        raise ValueError(
            "where and how runs are started is said on the command line: --via, --cluster,"
            " cluster.timeout_min=30."
        )
    if any(part.startswith("_") and part.endswith("_") for part in parts):
        raise ValueError("names in underscores belong to Hydra and are not accepted.")
    if len(prefix) > 2 or (prefix and plain in aliases()):
        raise ValueError(f"write {plain!r}, without {prefix!r}.")
    found = aliases().get(plain, plain)
    if found in groups() or PATH.fullmatch(found):
        return prefix + found
    raise ValueError(
        "there is no such key."
        + (
            nearest(plain, [*aliases(), *groups()])
            or f" A key is a group ({', '.join(groups())}), an alias ({', '.join(aliases())})"
            " or a dotted path such as model.config.n_layer."
        )
    )
