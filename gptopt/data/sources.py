"""Opening what the config node ``data`` names: its corpus, and the sets beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptopt.config.data_rules import FURTHER
from gptopt.config.resolve import load_part
from gptopt.config.schema import DataCommon
from gptopt.data.corpus import (
    Corpus,
    DataError,
    MissingDataError,
    Mixture,
    Part,
    Stretch,
    Tokens,
    TokenSource,
    limited,
    mixture_of,
    single,
)
from gptopt.data.hashing import fingerprint
from gptopt.data.obtain import how_to_obtain

NOT_THE_FORMATS = {field.name for field in dataclasses.fields(DataCommon)} | {
    key for keys in FURTHER.values() for key in keys
}


def open_source(path: str, source: Mapping[str, Any], data_root: Path) -> Corpus:
    """Opens one source by its format.

    Args:
        path: Where the config names it, for messages.
        source: ``format`` (a file of ``gptopt/data/formats``) and that format's keys; others
            are passed over.
        data_root: Where relative paths start.

    Raises:
        DataError: As ``open_corpus``.
    """
    build = load_part("data.formats", source["format"]).build
    keys = {key: value for key, value in source.items() if key not in NOT_THE_FORMATS}
    name = source.get("name", path.rpartition(".")[2])
    try:
        return build(data_root=data_root, **keys)
    except MissingDataError as error:
        if source["format"] == "mixture":  # the source inside it has said all
            raise
        where = f"data={name}" if path == "data" else path
        raise MissingDataError(
            f"{where}: {error}\nThe data root is {data_root} (paths.data_root, or the "
            "environment variable DATA_ROOT).\n"
            f"{how_to_obtain({**source, 'name': name}, data_root)}"
        ) from error


def open_corpus(data: Mapping[str, Any], data_root: str | Path) -> Corpus:
    """Opens the corpus that the config node ``data`` describes, and the sets beside it.

    Args:
        data: ``name``, ``format`` (a file of ``gptopt/data/formats``) and that format's keys;
            ``max_tokens``, ``splits``, ``eval`` and ``test`` as in hydra_conf/config.yaml.
        data_root: Where relative paths start.

    Raises:
        DataError: Missing, unreadable, damaged or too small; missing data comes with the
            command that prepares it.
    """
    root = Path(data_root).expanduser().absolute()
    corpus = open_source("data", data, root)
    if data.get("splits") is not None:
        corpus = _split(corpus, data["splits"])
    if data.get("max_tokens") is not None:
        train = limited(single(corpus.train), data["max_tokens"], "data")
        corpus = dataclasses.replace(corpus, train=train)
    prints = [("corpus", corpus.fingerprint.encode())]
    files = dict(corpus.files)
    sets: dict[str, dict[str, Tokens]] = {"eval": {}, "test": dict(corpus.tests)}
    for kind, found in sets.items():
        for label, source in (data.get(kind) or {}).items():
            other = open_source(f"data.{kind}.{label}", source, root)
            found[label] = other.val
            prints.append((f"{kind} {label}", other.fingerprint.encode()))
            files |= {f"{kind} {label}: {name}": text for name, text in other.files.items()}
    return dataclasses.replace(
        corpus,
        fingerprint=fingerprint(prints) if len(prints) > 1 else corpus.fingerprint,
        files=files,
        evals=sets["eval"],
        tests=sets["test"],
    )


def _split(corpus: Corpus, shares: list[float]) -> Corpus:
    """Cuts the training tokens, or those of every part of a mixture, in three."""
    if len(corpus.val):
        raise DataError(
            "data.splits and the corpus's own held-out part exclude each other: set splits, or"
            " the key that holds out (val, val_split), to null."
        )
    mixture = mixture_of(corpus.train)
    cuts = [_cut(part.tokens, shares) for part in mixture.parts]
    train, val, test = (_like(corpus.train, [cut[number] for cut in cuts]) for number in range(3))
    return dataclasses.replace(
        corpus, train=train, val=val, tests={"": test} if len(test) > 1 else {}
    )


def _like(tokens: Tokens, sources: list[TokenSource]) -> Tokens:
    if not isinstance(tokens, Mixture):
        return sources[0]
    labelled = zip(tokens.parts, sources, strict=True)
    return Mixture(tuple(Part(p.label, source, p.weight) for p, source in labelled), tokens.mix)


def _cut(tokens: TokenSource, shares: list[float]) -> list[TokenSource]:
    """Consecutive stretches of these shares; rounding goes to the last that has any."""
    whole = len(tokens)
    first, second = round(shares[0] * whole), round((shares[0] + shares[1]) * whole)
    second = second if shares[2] else whole
    borders = [0, first, second, whole]
    return [Stretch(tokens, a, b) for a, b in zip(borders[:-1], borders[1:], strict=True)]
