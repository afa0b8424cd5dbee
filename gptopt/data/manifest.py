"""``manifest.json`` of a directory of shards: written last, so it vouches for all of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from gptopt.data.corpus import DataError
from gptopt.data.shards import Shard
from gptopt.files import read_json

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
"""Stands in a directory from the start of its preparation until the manifest does."""


def check_manifest(shards: Sequence[Shard], pattern: str, tokenizer: str) -> None:
    """Holds shards against the manifests beside them; shards made elsewhere may have none.

    Args:
        shards: What was found for ``pattern``.
        pattern: The glob pattern, for shards that the manifest has and the disk has not.
        tokenizer: The one that the config names.

    Raises:
        DataError: An unfinished preparation, a missing or foreign shard, another tokenizer.
    """
    for directory in sorted({shard.path.parent for shard in shards}):
        if (directory / UNFINISHED).exists():
            raise DataError(
                f"{directory}: `gptopt data prepare` has not finished here. Let it finish, or "
                "run the same command again."
            )
        path = directory / MANIFEST
        if not path.exists():
            continue
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not {"tokenizer", "shards"} <= manifest.keys():
            raise DataError(
                f"{path}: damaged, or not of `gptopt data prepare`. Prepare the data again, or "
                "move the file away if it belongs to something else."
            )
        if manifest["tokenizer"] != tokenizer:
            raise DataError(
                f"{path}: the shards were made with tokenizer {manifest['tokenizer']!r}; "
                f"data.tokenizer={tokenizer!r}. Set it (and data.vocab_size) to what they are."
            )
        listed = {name: entry["tokens"] for name, entry in manifest["shards"].items()}
        found = {
            shard.path.name: shard.tokens for shard in shards if shard.path.parent == directory
        }
        wanted = {name for name in listed if fnmatch.fnmatch(name, Path(pattern).name)}
        if missing := sorted(wanted - found.keys()):
            raise DataError(f"{path} lists {', '.join(missing)}, not found. Copy the rest.")
        for name, tokens in found.items():
            if listed.get(name) != tokens:
                raise DataError(
                    f"{directory / name} has {tokens} tokens, {path} says {listed.get(name, 0)}. "
                    "Remove the file if it is left over from elsewhere, or prepare again."
                )
