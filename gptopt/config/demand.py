"""What a run asks of its data: what is compared with a corpus before the run is queued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from gptopt.config import solver


class Demand(NamedTuple):
    """Equal for runs of which the data has to be looked at only once.

    Attributes:
        data: The node ``data``, as JSON.
        data_root: Where its relative paths start.
        context_length: Tokens that a window predicts.
        global_batch_size: Windows of a step.
        samples: Windows of the run; None where they do not matter (``data.loop``), or only the
            length of the data tells.
        eval_tokens: Tokens of each evaluation; None for all of a set.
        vocab_size: Ids that the model takes are below it.
    """

    data: str
    data_root: str
    context_length: int
    global_batch_size: int
    samples: int | None
    eval_tokens: int | None
    vocab_size: int


def demand(raw: Mapping[str, Any]) -> Demand:
    """The demand of a checked configuration, given as plain nodes; a measure of a survey."""
    training, model = raw["training"]["training_params"], raw["model"]["config"]
    context = training["context_length"] or model["block_size"]
    batch = solver.solve_batch(
        batch_size=training["batch_size"],
        global_batch_size=training["global_batch_size"],
        accumulation_steps=training["accumulation_steps"],
        data_parallel_size=raw["distributed"]["data_parallel_size"] or 1,
    )
    samples = None
    if not raw["data"]["loop"] and training["num_epochs"] is None:
        length = solver.solve_length(
            max_steps=training["max_steps"],
            max_tokens=training["max_tokens"],
            num_epochs=None,
            tokens_per_step=batch.global_batch_size * context,
            global_batch_size=batch.global_batch_size,
            windows=None,
        )
        assert length is not None
        samples = length.max_steps * batch.global_batch_size
    return Demand(
        data=json.dumps(_plain(raw["data"])),
        data_root=raw["paths"]["data_root"],
        context_length=context,
        global_batch_size=batch.global_batch_size,
        samples=samples,
        eval_tokens=raw["logging"]["logging_params"]["eval_tokens"],
        vocab_size=model["vocab_size"],
    )


def _plain(node: Any) -> Any:
    return {key: _plain(node[key]) for key in node} if isinstance(node, Mapping) else node
