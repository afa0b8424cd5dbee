"""Corpora that stay on disk: what they are made of, and which tokens are held out."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptopt.data.corpus import Corpus, DataError, MissingDataError, Stretch, TokenSource
from gptopt.data.hashing import fingerprint
from gptopt.data.shards import Shard, Shards, sampled_sha256

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """Tokens, and the files that they are in, by name relative to the data root."""

    tokens: TokenSource
    files: dict[str, Path]


def match(data_root: Path, key: str, pattern: str, opener: Callable[[Path], Shard]) -> Stored:
    """The files of a glob pattern, sorted by name, as one source.

    Raises:
        MissingDataError: No file matches.
    """
    names = sorted(glob.glob(pattern, root_dir=data_root, recursive=True))
    if not names:
        raise MissingDataError(f"data.{key}={pattern}: no file matches {data_root / pattern}.")
    files = {name: data_root / name for name in names}
    return Stored(Shards([opener(path) for path in files.values()]), files)


def corpus_of_files(
    train: Stored, val: Stored | None, val_split: int | float | None, vocab_size: int
) -> Corpus:
    """The corpus of both, or of ``train`` with its tail held out.

    Files of one part with the same content are told of in a warning: they are read twice.

    The fingerprint is the sha256 over part, name and sampled contents of all files, and over
    ``val_split`` where there is one.

    Raises:
        DataError: ``val`` and ``val_split`` are both given, a file is in both parts, or
            ``val_split`` leaves one of them empty.
    """
    if val is not None and val_split is not None:
        raise DataError(
            f"data.val_split={val_split} and data.val={', '.join(list(val.files)[:2])} ... exclude "
            "each other: set one of them to null."
        )
    parts = {"train": train} if val is None else {"train": train, "val": val}
    samples = {
        (part, name): sampled_sha256(path)
        for part, stored in parts.items()
        for name, path in stored.files.items()
    }
    first: dict[tuple[str, str], str] = {}
    for (part, name), sample in samples.items():
        if (earlier := first.setdefault((part, sample), name)) != name:
            log.warning("data.%s: %s has the content of %s: both are read", part, name, earlier)
    held_out = {sample: name for (part, name), sample in samples.items() if part == "val"}
    for name, path in train.files.items():
        if (other := held_out.get(samples["train", name])) is not None:
            assert val is not None
            raise DataError(
                f"{path} is among the training shards (data.train) and has the content of the "
                f"validation shard {val.files[other]} (data.val). Give patterns that share no "
                "tokens."
            )
    prints = [(f"{part} {name}", sample.encode()) for (part, name), sample in samples.items()]
    if val_split is not None:
        prints.append(("val_split", repr(val_split).encode()))
    kept, rest = (train.tokens, val.tokens) if val else split(train.tokens, val_split)
    return Corpus(
        kept,
        rest,
        fingerprint(prints),
        vocab_size=vocab_size,
        files={
            name: f"{parts[part].files[name].stat().st_size} bytes, sampled sha256 {sample}"
            for (part, name), sample in samples.items()
        },
    )


def split(tokens: TokenSource, val_split: int | float | None) -> tuple[TokenSource, TokenSource]:
    """(train, val) where val is the tail of ``tokens``, as ``corpus.split_tail`` has it.

    Raises:
        DataError: Where either part would be empty.
    """
    if val_split is None:
        return tokens, np.empty(0, dtype=tokens.dtype)
    count = len(tokens)
    held_out = val_split if isinstance(val_split, int) else int(val_split * count)
    if not 0 < held_out < count:
        raise DataError(
            f"{count:,} tokens; data.val_split={val_split} would hold out {held_out:,} of them and "
            "must leave both parts some. Give a number of tokens (int) or a share between 0 and 1."
        )
    return Stretch(tokens, 0, count - held_out), Stretch(tokens, count - held_out, count)
