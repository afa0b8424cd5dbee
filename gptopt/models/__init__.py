"""Models: one file per family, each with ``build`` and a config dataclass beside it.

Importing this package imports no torch; ``config.resolve.part_names("models")`` lists the files.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gptopt.config.resolve import load_part

if TYPE_CHECKING:
    from torch import nn


def build_model(family: str, config: Mapping[str, Any]) -> nn.Module:
    """The model that the config node ``model`` describes, its weights drawn anew.

    Besides ``forward(tokens_BT) -> logits_BTV`` it has ``parameter_roles()``: every name of
    ``named_parameters()`` -> its role. One that knows muP has ``mup_width``: how many times as
    wide it is as its base, None without muP. Weights come from torch's global generator, and lie
    on the device that is torch's default (``with torch.device("meta")`` draws and stores nothing).

    Args:
        family: Names the file gptopt/models/<family>.py.
        config: Every key of that file's config dataclass.

    Raises:
        ValueError: There is no such family.
    """
    build = load_part("models", family).build
    schema = typing.get_type_hints(build)["config"]
    return build(schema(**config))
