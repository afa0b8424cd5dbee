"""Vocabularies learnt from a corpus: what ``gptopt data train-tokenizer`` does.

bpe           byte-level pairs, cut into words as GPT-2 does; a file of the tokenizers package
characters    {"kind": "characters", "characters": "..."}, sorted; their places are the ids
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

from gptopt.data.corpus import DataError, MissingDataError
from gptopt.data.texts import TextOptions, documents, find_files
from gptopt.data.tokenizers import CHARACTERS, ENDS
from gptopt.files import write

SMALLEST = 257
"""The bytes and the end of the text."""


def train_tokenizer(
    sources: Sequence[str | Path],
    out: Path,
    *,
    kind: Literal["bpe", "characters"],
    vocab_size: int,
    options: TextOptions,
) -> int:
    """Writes the vocabulary of ``sources`` to ``out`` and returns its size.

    Args:
        sources: Files and directories, as for ``prepare``.
        out: A new .json file.
        kind: See above.
        vocab_size: Of a bpe, the end-of-text token included; a small corpus may give less.
        options: What documents are.

    Raises:
        DataError: ``out`` is taken or badly named, a source cannot be read, or is too little.
        MissingDataError: A bpe takes the package tokenizers.
    """
    if out.suffix != ".json" or out.exists():
        raise DataError(f"--out {out}: give the name of a new file that ends in .json.")
    files = find_files(sources, options.patterns)
    texts = (document.text for document in documents(files, options))
    if kind == "characters":
        characters = sorted(set().union(*texts))
        content = json.dumps({"kind": CHARACTERS, "characters": "".join(characters)}) + "\n"
        size = len(characters) + 1
        if not characters:
            raise DataError("The sources hold no text.")
    else:
        content, size = _bpe(texts, vocab_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, content)
    return size


def _bpe(texts: Iterable[str], vocab_size: int) -> tuple[str, int]:
    if vocab_size < SMALLEST:
        raise DataError(
            f"vocab_size={vocab_size}: {SMALLEST} at least, the bytes and the end of the text."
        )
    try:
        package = import_module("tokenizers")
    except ImportError as error:
        raise MissingDataError("A bpe is trained by a package: pip install tokenizers") from error
    vocabulary = package.Tokenizer(package.models.BPE())
    byte_level = package.pre_tokenizers.ByteLevel
    vocabulary.pre_tokenizer = byte_level(add_prefix_space=False)
    vocabulary.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[ENDS[0]],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    vocabulary.train_from_iterator(texts, trainer)
    return vocabulary.to_str(pretty=False) + "\n", vocabulary.get_vocab_size()
