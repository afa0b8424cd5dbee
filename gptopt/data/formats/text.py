"""Text as bytes: one file, or all ``.txt`` files of a directory in sorted order.

The tail of the text is held out. The fingerprint is the sha256 of both parts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError, MissingDataError, split_tail
from gptopt.data.hashing import fingerprint


def build(*, data_root: Path, path: str, val_split: PositiveInt | Share) -> Corpus:
    """Reads the text at ``path`` (relative to ``data_root`` unless absolute) into memory."""
    place = data_root / Path(path).expanduser()
    files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
    if not files:
        raise MissingDataError(f"data.path={path}: no .txt file in the directory {place}.")
    contents = {file: _read(file, path) for file in files}
    tokens = np.frombuffer(b"".join(contents.values()), dtype=np.uint8)
    train, val = split_tail(tokens, val_split, str(place))
    return Corpus(
        train,
        val,
        fingerprint([("train", train.tobytes()), ("val", val.tobytes())]),
        vocab_size=256,
        files={
            str(file): f"sha256 {hashlib.sha256(content).hexdigest()}"
            for file, content in contents.items()
        },
    )


def _read(file: Path, path: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"data.path={path}: no file or directory {file}.") from error
    except OSError as error:
        raise DataError(f"data.path={path}: {file} cannot be read: {error.strerror}.") from error
