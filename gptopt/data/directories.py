"""What formats that are directories with an index.json have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.stored import Stored, corpus_of_files
from gptopt.files import read_json


def read_index(data_root: Path, key: str, directory: str) -> tuple[Path, dict[str, Any]]:
    """(directory, content of its index.json).

    Raises:
        MissingDataError: There is none.
        DataError: It is damaged.
    """
    place = data_root / Path(directory).expanduser()
    path = place / "index.json"
    if not path.is_file():
        raise MissingDataError(f"data.{key}={directory}: no file {path}.")
    index = read_json(path)
    if not isinstance(index, dict):
        raise DataError(f"{path}: damaged, or not of this format. Copy it again.")
    return place, index


def entry(index: Any, key: Any, kind: type, path: Path) -> Any:
    """``index[key]``, of type ``kind``.

    Raises:
        DataError: It is missing or of another type.
    """
    value = index.get(key) if isinstance(index, dict) else None
    counts = not isinstance(value, int) or (not isinstance(value, bool) and value >= 0)
    if not isinstance(value, kind) or not counts:
        raise DataError(
            f"{path}: {key!r} is {value!r}, and should be {kind.__name__}. The index is damaged, "
            "or not of this format."
        )
    return value


def inside(place: Path, name: str, index: Path) -> Path:
    """The file ``name`` of an index.

    Raises:
        MissingDataError: It is not there.
    """
    if not (place / name).is_file():
        raise MissingDataError(f"{index} lists {name}, not found. Copy the rest.")
    return place / name


def corpus_of_directories(
    read: Callable[[str, str], Stored],
    train: str,
    val: str | None,
    val_split: int | float | None,
    vocab_size: int,
) -> Corpus:
    """The corpus of directories, each read by ``read(key, directory)``."""
    held_out = read("val", val) if val is not None else None
    return corpus_of_files(read("train", train), held_out, val_split, vocab_size)
