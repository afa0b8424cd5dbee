"""Directories of .npy shards with an index, as optimus-dl writes them.

    index.json    {"files": [{"file", "lens_file", "num_tokens", "num_docs"}, ...], "total_tokens"}
    <name>_0000000000.npy         ids of the documents, one after the other
    <name>_0000000000_lens.npy    their lengths

Lengths tell where documents begin, so ``data.documents`` needs no end-of-text id.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.directories import corpus_of_directories, entry, inside, read_index
from gptopt.data.npy import open_npy
from gptopt.data.shards import AGAIN, Shards
from gptopt.data.stored import Stored


def build(
    *,
    data_root: Path,
    train: str,
    val: str | None,
    val_split: PositiveInt | Share | None,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens all shards of the directories and compares them with their index."""
    return corpus_of_directories(
        lambda key, directory: _read(data_root, key, directory), train, val, val_split, vocab_size
    )


def _read(data_root: Path, key: str, directory: str) -> Stored:
    place, index = read_index(data_root, key, directory)
    path = place / "index.json"
    shards, lengths, files = [], [], {}
    for listed in entry(index, "files", list, path):
        name = entry(listed, "file", str, path)
        shard = open_npy(inside(place, name, path))
        lens = inside(place, entry(listed, "lens_file", str, path), path)
        counted = open_npy(lens)
        of_shard = Shards([counted])[0 : counted.tokens].astype(np.int64)
        said = entry(listed, "num_tokens", int, path)
        if not shard.tokens == said == of_shard.sum():
            raise DataError(
                f"{shard.path} has {shard.tokens} tokens, {path} says {said}, and the lengths in "
                f"{lens.name} add up to {of_shard.sum()}. {AGAIN}"
            )
        shards.append(shard)
        lengths.append(of_shard)
        files[f"{directory}/{name}"] = shard.path
    if not shards:
        raise DataError(f"{path}: lists no files.")
    tokens = Shards(shards)
    ends = np.cumsum(np.concatenate(lengths))
    tokens.boundaries = np.concatenate([[0], ends[:-1]])  # type: ignore[attr-defined]
    return Stored(tokens, files)
