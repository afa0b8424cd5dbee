"""The standard library's own Python sources: real text that every machine already has.

Tokens are bytes. The files, sorted by path, are read one after the other; every
``val_every``-th of them (numbers val_every, 2 val_every, ...) is held out whole, with null none.

The text differs between Python versions and distributions, so losses on it compare within one
machine; the fingerprint (sha256 over part, path and content of each file) tells them apart.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptopt.config.types import PositiveInt
from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.hashing import fingerprint

LEFT_OUT = {
    *("test", "tests", "idlelib", "lib2to3", "turtledemo"),  # some distributions ship without
    *("site-packages", "dist-packages"),  # what was installed is not the standard library
    *("encodings", "__pycache__"),  # code tables, not text
}


def build(*, data_root: Path, val_every: PositiveInt | None) -> Corpus:
    """Reads the running interpreter's standard library (about 9 MB)."""
    return read_sources(Path(sysconfig.get_path("stdlib")), val_every)


def read_sources(directory: Path, val_every: int | None) -> Corpus:
    """The ``.py`` files below ``directory`` as a corpus.

    Raises:
        MissingDataError: Where there are no files (some embedded Pythons ship none).
        DataError: If ``val_every`` leaves one part empty.
    """
    files = sorted(_sources(directory))
    if not files:
        raise MissingDataError(f"No .py files in {directory}, this Python's standard library.")
    parts: dict[str, list[tuple[str, bytes]]] = {"train": [], "val": []}
    for number, path in enumerate(files, start=1):
        part = "train" if val_every is None or number % val_every else "val"
        parts[part].append((f"{part} {path}", (directory / path).read_bytes()))
    train, val = (
        np.frombuffer(b"".join(content for _, content in part), dtype=np.uint8)
        for part in parts.values()
    )
    if val_every is not None and not (len(train) and len(val)):
        raise DataError(
            f"data.val_every={val_every}: of {len(files)} files {len(parts['train'])} would be "
            f"training files and {len(parts['val'])} held out. Give 2 to {len(files)}."
        )
    content_hash = fingerprint([*parts["train"], *parts["val"]])
    summary = f"{len(files)} files, {len(train) + len(val)} bytes, sha256 {content_hash}"
    return Corpus(train, val, content_hash, vocab_size=256, files={str(directory): summary})


def _sources(directory: Path) -> Iterator[str]:
    """Paths of the sources, relative to ``directory``, with forward slashes."""
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = [name for name in subfolders if name not in LEFT_OUT]
        for name in names:
            if name.endswith(".py"):
                yield Path(folder, name).relative_to(directory).as_posix()
