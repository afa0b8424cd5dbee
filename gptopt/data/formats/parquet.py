"""Columns of .parquet and Arrow files (package pyarrow): texts, or token ids made elsewhere.

``path`` is a file, or a directory: of .parquet files, or what ``save_to_disk`` of Hugging Face
datasets wrote (``data-*.arrow``, listed in state.json). A column of integer lists, such as
input_ids, is taken as it is; texts are tokenized as in ``jsonl``, with an end-of-text token
before each. All of it lies in memory, in the smallest type that holds the ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.memory import corpus_of, joined, smallest
from gptopt.data.shards import sampled_sha256
from gptopt.data.tables import batches, errors_of
from gptopt.data.texts import text_of
from gptopt.data.tokenizers import load_tokenizer
from gptopt.files import read_json


def build(
    *,
    data_root: Path,
    path: str,
    fields: list[str],
    tokenizer: str,
    allow_pickle: bool,
    vocab_size: PositiveInt | None,
    val_split: PositiveInt | Share | None,
) -> Corpus:
    """Reads all rows; ``vocab_size`` is asked for where the column holds ids."""
    place = data_root / Path(path).expanduser()
    files = _files(place, path)
    if _holds_ids(files[0], fields):
        if vocab_size is None:
            raise DataError(
                f"data.fields={fields}: {files[0]} holds token ids there. Set data.vocab_size: all "
                "ids are below it."
            )
        tokens = smallest([ids for file in files for ids in _ids(file, fields[0])], place)
    else:
        encoder = load_tokenizer(tokenizer, data_root, allow_pickle=allow_pickle)
        vocab_size = encoder.vocab_size
        tokens = joined(encoder, _texts(files, fields), str(place))
    summaries = {str(file): f"sampled sha256 {sampled_sha256(file)}" for file in files}
    return corpus_of(tokens, val_split, str(place), vocab_size, summaries)


def _files(place: Path, path: str) -> list[Path]:
    if place.is_file():
        return [place]
    state = read_json(place / "state.json")
    if isinstance(state, dict) and "_data_files" in state:
        files = [place / str(entry["filename"]) for entry in state["_data_files"]]
    else:
        files = sorted([*place.rglob("*.parquet"), *place.glob("*.arrow")])
    if missing := [file for file in files if not file.is_file()]:
        raise MissingDataError(f"{place / 'state.json'} lists {missing[0].name}, not found.")
    if not files:
        raise MissingDataError(f"data.path={path}: no .parquet or .arrow file at {place}.")
    return files


def _holds_ids(file: Path, fields: list[str]) -> bool:
    with errors_of(file) as package:
        schema = next(batches(file, None)).schema
        missing = [field for field in fields if field not in schema.names]
        if missing:
            raise DataError(
                f"{file}: no column {missing[0]!r}; it has: {', '.join(schema.names)}. Set "
                "data.fields."
            )
        kind = schema.field(fields[0]).type
        lists = package.types.is_list(kind) or package.types.is_large_list(kind)
        holds = lists and package.types.is_integer(kind.value_type)
    if holds and len(fields) > 1:
        raise DataError(f"data.fields={fields}: of token ids, name the one column.")
    return holds


def _ids(file: Path, field: str) -> Iterator[np.ndarray]:
    with errors_of(file):
        for batch in batches(file, None):
            yield batch.column(field).flatten().to_numpy(zero_copy_only=False)


def _texts(files: list[Path], fields: list[str]) -> Iterator[tuple[str, bool]]:
    number = 0
    for file in files:
        for batch in batches(file, None):
            row: dict[str, Any]
            for row in batch.select(fields).to_pylist():
                number += 1
                if text := text_of(row, fields, f"{file}, row {number}"):
                    yield text, True
