"""Prepared shards against their manifest, byte by byte: what ``gptopt data verify`` does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gptopt.data.corpus import DataError, MissingDataError
from gptopt.data.manifest import MANIFEST, UNFINISHED
from gptopt.data.shards import open_shard
from gptopt.files import read_json


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a finished preparation.

    Raises:
        DataError: It is missing, damaged, or the preparation has not finished.
    """
    path = directory / MANIFEST
    if (directory / UNFINISHED).exists():
        raise DataError(f"{directory}: `gptopt data prepare` has not finished here.")
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; `gptopt data prepare` writes one.")
    manifest = read_json(path)
    keys = {"tokenizer", "vocab_size", "end_of_text", "shards", "tokens"}
    if not isinstance(manifest, dict) or not keys <= manifest.keys():
        raise DataError(f"{path}: damaged, or not of `gptopt data prepare`.")
    return manifest


def verify(directory: Path) -> int:
    """Reads every shard and compares header, size and sha256 with the manifest.

    Returns:
        The number of shards.

    Raises:
        DataError: With all that is wrong.
    """
    manifest = read_manifest(directory)
    problems = []
    for name, entry in manifest["shards"].items():
        try:
            shard = open_shard(directory / name, None)
        except DataError as error:
            problems.append(str(error))
            continue
        with open(shard.path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry["sha256"]:
            problems.append(f"{shard.path}: sha256 {sha256}; the manifest says {entry['sha256']}.")
        if entry["max_id"] >= manifest["vocab_size"]:
            problems.append(
                f"{shard.path}: token id {entry['max_id']}; vocab_size is {manifest['vocab_size']}."
            )
    listed = manifest["shards"].keys()
    further = sorted(path.name for path in directory.glob("*.bin") if path.name not in listed)
    problems += [f"{directory / name}: not in the manifest." for name in further]
    if problems:
        raise DataError("\n".join([*problems, "Copy these shards again, or prepare them again."]))
    return len(listed)
