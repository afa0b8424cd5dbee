"""Several corpora that are trained on together: ``gptopt/data/mixture.py`` says in which order.

The held-out part is a mixture, too: each source's own is evaluated by its label, and the
validation loss is their mean by the shares of training. The fingerprint is the sha256 over labels
and fingerprints of the sources; ``vocab_size`` is the largest of theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gptopt.data.corpus import Corpus, Mixture, Part, limited, single
from gptopt.data.hashing import fingerprint
from gptopt.data.sources import open_source


def build(
    *, data_root: Path, mix: Literal["weighted", "sequential"], sources: dict[str, Any]
) -> Corpus:
    """Opens every source: ``format``, its keys, and ``weight`` unless ``mix`` is sequential."""
    corpora = {
        label: open_source(f"data.sources.{label}", source, data_root)
        for label, source in sources.items()
    }
    train, val = [], []
    for label, corpus in corpora.items():
        most = sources[label].get("max_tokens")
        tokens = limited(single(corpus.train), most, f"data.sources.{label}")
        weight = sources[label]["weight"] if mix == "weighted" else len(tokens)
        train.append(Part(label, tokens, weight))
        val.append(Part(label, single(corpus.val), weight))
    return Corpus(
        Mixture(tuple(train), mix),
        Mixture(tuple(val), mix),
        fingerprint([(label, corpus.fingerprint.encode()) for label, corpus in corpora.items()]),
        vocab_size=max(corpus.vocab_size for corpus in corpora.values()),
        files={
            f"{label}: {name}": summary
            for label, corpus in corpora.items()
            for name, summary in corpus.files.items()
        },
    )
