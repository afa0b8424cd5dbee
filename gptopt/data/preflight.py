"""What can be said about the data of runs before any of them is queued; needs no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby

from gptopt.config.demand import Demand, demand
from gptopt.config.schema import Config
from gptopt.data.checks import check_corpus, check_ids, sources_of
from gptopt.data.sources import open_corpus


def check_runs(configs: Iterable[Config]) -> None:
    """``check_demands`` of these runs."""
    check_demands(demand(dataclasses.asdict(config)) for config in configs)


def check_demands(demands: Iterable[Demand]) -> None:
    """Opens every corpus of a sweep once, and asks it what each run will ask at its start.

    Costs milliseconds a shard: headers, sizes and manifests are compared, and token ids looked
    at in some places of every source. A run looks at all of them.

    Raises:
        DataError: It is missing, damaged or too small; names the file, the place and the value.
    """
    distinct = sorted(set(demands), key=repr)
    for (text, data_root), asked in groupby(distinct, key=lambda one: (one.data, one.data_root)):
        data = json.loads(text)
        corpus = open_corpus(data, data_root)
        looked_at = set()
        for one in asked:
            check_corpus(
                corpus,
                data,
                context_length=one.context_length,
                global_batch_size=one.global_batch_size,
                samples=one.samples,
                eval_tokens=one.eval_tokens,
            )
            if one.vocab_size not in looked_at:
                looked_at.add(one.vocab_size)
                for _, source in sources_of(corpus):
                    check_ids(source, one.vocab_size, in_full=False)
