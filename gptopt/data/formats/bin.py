"""Token shards (``.bin``), found by glob patterns; layouts in ``gptopt/data/shards.py``.

The files of a pattern, sorted by name, are one token sequence; windows run across their borders.
The fingerprint is the sha256 over part, name and sampled contents of all shards.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Literal

from gptopt.config.types import PositiveInt
from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.hashing import fingerprint
from gptopt.data.manifest import check_manifest
from gptopt.data.shards import Shard, Shards, open_shard, sampled_sha256


def build(
    *,
    data_root: Path,
    train: str,
    val: str,
    dtype: Literal["uint8", "uint16", "uint32"] | None,
    tokenizer: str,
    vocab_size: PositiveInt,
) -> Corpus:
    """Opens all shards of both patterns and compares their headers, sizes and manifests."""
    parts: dict[str, dict[str, Shard]] = {}
    for key, pattern in {"train": train, "val": val}.items():
        names = sorted(glob.glob(pattern, root_dir=data_root, recursive=True))
        if not names:
            raise MissingDataError(f"data.{key}={pattern}: no file matches {data_root / pattern}.")
        parts[key] = {name: open_shard(data_root / name, dtype) for name in names}
        check_manifest(list(parts[key].values()), pattern, tokenizer)

    samples = {
        (key, name): sampled_sha256(shard.path)
        for key, shards in parts.items()
        for name, shard in shards.items()
    }
    held_out = {sample: name for (key, name), sample in samples.items() if key == "val"}
    for name in parts["train"]:
        if (other := held_out.get(samples["train", name])) is not None:
            raise DataError(
                f"{data_root / name} is among the training shards (data.train={train}) and has "
                f"the content of the validation shard {data_root / other} (data.val={val}). "
                "Give patterns that share no tokens."
            )
    return Corpus(
        Shards(list(parts["train"].values())),
        Shards(list(parts["val"].values())),
        fingerprint([(f"{key} {name}", s.encode()) for (key, name), s in samples.items()]),
        vocab_size=vocab_size,
        files={
            name: f"{parts[key][name].tokens} tokens, sampled sha256 {sample}"
            for (key, name), sample in samples.items()
        },
    )
