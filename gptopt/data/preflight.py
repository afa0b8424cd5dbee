"""What can be said about the data of runs before any of them is queued; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

from gptopt.config.demand import Demand
from gptopt.data.checks import check_documents, check_enough, check_epochs, check_ids, sources_of
from gptopt.data.sources import open_corpus


def check_runs(demands: Iterable[Demand]) -> None:
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
        check_documents(corpus, data["documents"], data["end_of_text"])
        looked_at = set()
        for demand in asked:
            check_enough(
                corpus,
                context_length=demand.context_length,
                global_batch_size=demand.global_batch_size,
                eval_tokens=demand.eval_tokens,
            )
            if demand.samples is not None:
                check_epochs(
                    corpus,
                    context_length=demand.context_length,
                    samples=demand.samples,
                    loop=data["loop"],
                )
            if demand.vocab_size not in looked_at:
                looked_at.add(demand.vocab_size)
                for _, source in sources_of(corpus):
                    check_ids(source, demand.vocab_size, in_full=False)
