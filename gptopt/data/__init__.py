"""Corpora: opening one by its config node. Batches are ``gptopt.data.loader`` (needs torch)."""

from __future__ import annotations

from gptopt.data.checks import check_corpus, check_ids, sources_of
from gptopt.data.corpus import Corpus, DataError, TokenSource
from gptopt.data.sources import open_corpus

__all__ = [
    "Corpus",
    "DataError",
    "TokenSource",
    "check_corpus",
    "check_ids",
    "open_corpus",
    "sources_of",
]
