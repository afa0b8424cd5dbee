"""One unit of documents to ids, in a file: what every worker of ``prepare`` does.

A unit's file has n rows, a document or a piece of a long one each, and m ids:

    int64 n, int64 m | n x 16 bytes, digests | n x int64, ids of each row
    | n x uint8, whether a document starts | m ids of the tokenizer's smallest type
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptopt.data.corpus import DataError
from gptopt.data.preparation.options import Options
from gptopt.data.texts import Document, Span, read
from gptopt.data.tokenizers import Tokenizer, id_type, load_tokenizer

_load = cache(load_tokenizer)


class Rows(NamedTuple):
    """What a unit's file says about its rows, each of length n, and where its ids begin."""

    digests: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    first_byte: int


@dataclass(frozen=True)
class Tokenize:
    """Tokenizes units; goes to other processes, which open the tokenizer on their own."""

    options: Options
    data_root: Path

    def __call__(self, item: tuple[int, tuple[Span, ...], Path]) -> int:
        """Writes the documents of some spans to a file and returns the unit's number."""
        number, portion, name = item
        options = self.options
        encoder = _load(options.tokenizer, self.data_root, allow_pickle=options.allow_pickle)
        end = np.array([encoder.end_of_text], dtype=id_type(encoder.vocab_size))
        digests, lengths, starts, ids = [], [], [], []
        for span in portion:
            for document in read(span, options.texts):
                encoded = _encode(encoder, document, span)
                digests.append(document.digest)
                starts.append(document.starts)
                lengths.append(len(encoded) + document.starts)
                ids += [end, encoded] if document.starts else [encoded]
        sizes = np.array([len(digests), sum(lengths)], dtype="<i8")
        partial = name.with_name(f"{name.name}.{os.getpid()}.tmp")
        with open(partial, "wb") as file:
            file.write(sizes.tobytes())
            file.write(b"".join(digests))
            file.write(np.array(lengths, dtype="<i8").tobytes())
            file.write(np.array(starts, dtype=np.uint8).tobytes())
            file.writelines(part.data for part in ids)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(name)
        return number


def _encode(encoder: Tokenizer, document: Document, span: Span) -> np.ndarray:
    try:
        return encoder.encode(document.text)
    except DataError as error:
        raise DataError(f"{span.path}: {error}") from error


def read_rows(name: Path) -> Rows:
    """The rows of a unit's file."""
    with open(name, "rb") as file:
        count, _ = np.fromfile(file, dtype="<i8", count=2).tolist()
        return Rows(
            np.fromfile(file, dtype=">u8", count=2 * count).reshape(count, 2),
            np.fromfile(file, dtype="<i8", count=count),
            np.fromfile(file, dtype=np.uint8, count=count).astype(bool),
            file.tell(),
        )
