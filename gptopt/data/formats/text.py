"""Text files: one, or those of a directory in sorted order, tokenized when the run starts.

Every file of a directory begins with the tokenizer's end-of-text token (byte 0 for ``bytes``);
a single file is one text without borders. The tail of the tokens is held out. The fingerprint is
the sha256 of both parts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.memory import corpus_of, joined
from gptopt.data.texts import TextOptions, documents
from gptopt.data.tokenizers import load_tokenizer


def build(
    *,
    data_root: Path,
    path: str,
    patterns: list[str],
    tokenizer: str,
    allow_pickle: bool,
    val_split: PositiveInt | Share | None,
) -> Corpus:
    """Reads the text at ``path`` (relative to ``data_root`` unless absolute) into memory."""
    place = data_root / Path(path).expanduser()
    encoder = load_tokenizer(tokenizer, data_root, allow_pickle=allow_pickle)
    several = place.is_dir()
    found = {file for pattern in patterns for file in place.rglob(pattern)} if several else {place}
    files = sorted(file for file in found if not file.is_dir())
    if not files:
        wanted = " or ".join(patterns)
        raise MissingDataError(f"data.path={path}: no {wanted} file in the directory {place}.")
    checksums = {str(file): f"sha256 {_sha256(file, path)}" for file in files}
    options = TextOptions((), tuple(patterns), separator=None)
    texts = ((document.text, several and document.starts) for document in documents(files, options))
    tokens = joined(encoder, texts, str(place))
    return corpus_of(tokens, val_split, str(place), encoder.vocab_size, checksums)


def _sha256(file: Path, path: str) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise MissingDataError(f"data.path={path}: no file or directory {file}.") from error
    except OSError as error:
        raise DataError(f"data.path={path}: {file} cannot be read: {error.strerror}.") from error
