"""From tokenized units to shards: which documents, in which part and in which order.

Memory holds 40 bytes a document and one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptopt.data.hashing import mix64
from gptopt.data.preparation.options import Options
from gptopt.data.preparation.tokenizing import Rows, read_rows
from gptopt.data.preparation.writing import PartWriter
from gptopt.data.tokenizers import Tokenizer, id_type

PARTS = ("train", "val")


class Parts(NamedTuple):
    """What was written: counts by part, entries by shard."""

    documents: dict[str, int]
    duplicates: int
    tokens: dict[str, int]
    shards: dict[str, dict[str, int | str]]


def join(names: Sequence[Path], out: Path, options: Options, encoder: Tokenizer) -> Parts:
    """Writes the shards of the units ``names`` into ``out``."""
    units = [read_rows(name) for name in names]
    digests = np.concatenate([unit.digests for unit in units])
    lengths = np.concatenate([unit.lengths for unit in units])
    starts = np.concatenate([unit.starts for unit in units])
    kept = _first_of_equals(digests, starts) if options.deduplicate else np.ones_like(starts)
    held_out = digests[:, 0] < np.uint64(int(options.val_share * 2.0**64))  # (1) of prepare.py
    rows = {"train": kept & ~held_out, "val": kept & held_out}
    tokens = {part: int(lengths[rows[part]].sum()) for part in PARTS}
    writers = {
        part: PartWriter(out, part, tokens[part], options.shard_tokens, encoder.vocab_size)
        for part in PARTS
    }
    dtype = id_type(encoder.vocab_size)
    if options.shuffle_seed is None:
        _append_in_order(names, units, rows, writers, dtype)
    else:
        key = mix64(np.array([options.shuffle_seed], dtype=np.uint64))
        order = np.argsort(mix64(digests[:, 0] ^ key), kind="stable")
        _append_in(order, names, units, rows, writers, dtype)
    return Parts(
        documents={part: int((rows[part] & starts).sum()) for part in PARTS},
        duplicates=int((~kept & starts).sum()),
        tokens=tokens,
        shards=writers["train"].shards | writers["val"].shards,
    )


def _first_of_equals(digests: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which rows, (n,) bool, belong to a document that no earlier one is equal to."""
    documents = np.cumsum(starts) - 1
    _, first = np.unique(digests[starts], axis=0, return_index=True)
    kept = np.zeros(int(starts.sum()), dtype=bool)
    kept[first] = True
    return kept[documents]


def _append_in_order(
    names: Sequence[Path],
    units: Sequence[Rows],
    rows: dict[str, np.ndarray],
    writers: dict[str, PartWriter],
    dtype: np.dtype,
) -> None:
    done = 0
    for name, unit in zip(names, units, strict=True):
        ids = np.fromfile(name, dtype=dtype, offset=unit.first_byte)
        here = slice(done, done + len(unit.lengths))
        for part, writer in writers.items():
            writer.append(ids[np.repeat(rows[part][here], unit.lengths)])
        done = here.stop


def _append_in(
    order: np.ndarray,
    names: Sequence[Path],
    units: Sequence[Rows],
    rows: dict[str, np.ndarray],
    writers: dict[str, PartWriter],
    dtype: np.dtype,
) -> None:
    """Equal keys, so the pieces of one document, stay together and in their order."""
    numbers = np.repeat(np.arange(len(units)), [len(unit.lengths) for unit in units])
    bytes_before = [np.cumsum(unit.lengths) - unit.lengths for unit in units]
    places = np.concatenate(
        [
            unit.first_byte + before * dtype.itemsize
            for unit, before in zip(units, bytes_before, strict=True)
        ]
    )
    lengths = np.concatenate([unit.lengths for unit in units])
    for row in order[(rows["train"] | rows["val"])[order]].tolist():
        ids = np.fromfile(
            names[numbers[row]], dtype=dtype, count=lengths[row], offset=int(places[row])
        )
        writers["val" if rows["val"][row] else "train"].append(ids)
