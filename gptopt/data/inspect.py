"""What is in a corpus: what ``gptopt data inspect`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from gptopt.data.corpus import Corpus, DataError, MissingDataError, Mixture, TokenSource
from gptopt.data.obtain import presets
from gptopt.data.tokenizers import load_tokenizer
from gptopt.data.verify import read_manifest

CHUNK = 1 << 22
LENGTH = 60
"""Tokens of a sample."""
BYTE_FORMATS = ("stdlib", "grammar")
Decode = Callable[[Sequence[int]], str]


def node_of_directory(directory: Path) -> dict[str, Any]:
    """The config node ``data`` of shards that ``gptopt data prepare`` made."""
    manifest = read_manifest(directory)
    place = directory.absolute()
    return {
        "name": directory.name,
        "format": "bin",
        "train": f"{place}/train_*.bin",
        "val": f"{place}/val_*.bin",
        "val_split": None,
        "dtype": None,
        "tokenizer": manifest["tokenizer"],
        "vocab_size": manifest["vocab_size"],
    }


def node_of_preset(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config node of ``data=<name>`` with ``data.<key>=value`` changed.

    Raises:
        DataError: No such preset or key.
    """
    known = {data["name"]: data for data in presets()}
    if name not in known:
        raise DataError(f"data={name}: there are: {', '.join(known)}.")
    if unknown := values.keys() - known[name].keys():
        raise DataError(f"data.{min(unknown)}: data={name} has: {', '.join(known[name])}.")
    return {**known[name], **values}


def tokenizer_of(
    data: Mapping[str, Any], data_root: Path, allow_pickle: bool
) -> tuple[Decode | None, int | None]:
    """(decoder, end-of-text id) of a corpus; None where its tokenizer is not known or not here."""
    named = [data, *data.get("stages", ())]
    name = next((node["tokenizer"] for node in named if "tokenizer" in node), None)
    if data["format"] in BYTE_FORMATS:
        name = "bytes"
    if name is None:
        return None, None
    beside = (data_root / str(data.get("train", ""))).parent / name
    try:
        tokenizer = load_tokenizer(
            str(beside) if beside.is_file() else name, data_root, allow_pickle=allow_pickle
        )
    except MissingDataError:
        return None, None
    return tokenizer.decode, tokenizer.end_of_text


def describe(
    corpus: Corpus, decode: Decode | None, end_of_text: int | None, preview: int
) -> Iterator[str]:
    """Lines about a corpus; reads all of it.

    Args:
        corpus: Any.
        decode: Ids to text, for samples; without it they are shown as numbers.
        end_of_text: The id with which documents begin, if there is one.
        preview: Samples of each part.
    """
    yield f"fingerprint  {corpus.fingerprint}"
    yield f"vocab_size   {corpus.vocab_size}"
    if end_of_text is not None:
        yield f"end of text  {end_of_text}"
    if corpus.best_loss is not None:
        yield f"best loss    {corpus.best_loss:.4f} nats per token"
    named = {"train": corpus.train, "val": corpus.val, **corpus.evals, **corpus.tests}
    for name, tokens in named.items():
        if isinstance(tokens, Mixture):
            for part in tokens.parts:
                yield from _part(f"{name} {part.label}", part.tokens, decode, end_of_text, preview)
        else:
            yield from _part(name, tokens, decode, end_of_text, preview)
    for file, summary in corpus.files.items():
        yield f"file         {file}: {summary}"


def _part(
    name: str, tokens: TokenSource, decode: Decode | None, end_of_text: int | None, preview: int
) -> Iterator[str]:
    yield f"{name}:"
    yield f"  tokens     {len(tokens):,} ({np.dtype(tokens.dtype).name})"
    if not len(tokens):
        return
    counts = np.zeros(1, dtype=np.int64)
    begins = []
    for first in range(0, len(tokens), CHUNK):
        chunk = tokens[first : min(first + CHUNK, len(tokens))]
        if (highest := int(chunk.max())) >= 1 << 32:
            yield f"  damaged    token id {highest:,} (a negative number, or no id at all)"
            return
        here = np.bincount(chunk.astype(np.int64), minlength=len(counts))
        here[: len(counts)] += counts
        counts = here
        begins.append(first + np.flatnonzero(chunk == end_of_text))
    used = counts[counts > 0] / len(tokens)
    entropy = -sum(share * log(share) for share in used.tolist())
    yield f"  ids        {len(used):,} different, the highest {len(counts) - 1:,}"
    yield f"  entropy    {entropy:.4f} nats per token, of single tokens: the loss without context"
    known = getattr(tokens, "boundaries", None)
    borders = np.concatenate(begins) if known is None else known
    if len(borders):
        lengths = np.diff([*borders.tolist(), len(tokens)])
        yield (
            f"  documents  {len(lengths):,}; tokens in each: least {lengths.min():,}, median "
            f"{np.median(lengths):,.0f}, mean {lengths.mean():,.1f}, most {lengths.max():,}"
        )
    for number in range(preview):
        at = int(borders[len(borders) * number // preview]) if len(borders) else 0
        at = at if len(borders) else len(tokens) * number // preview
        ids = tokens[at : min(at + LENGTH, len(tokens))].tolist()
        yield (
            f"  sample     at {at:,}: {decode(ids)!r}"
            if decode
            else f"  sample     at {at:,}: {ids}"
        )
