"""Tokenizers: text to token ids and back. Vocabularies are local files, never downloads.

    bytes         the 256 bytes of UTF-8
    gpt2          vocab.json and merges.txt in <data root>/tokenizers/gpt2
    FILE.json     written by `gptopt data train-tokenizer`, or any file of the tokenizers package
    FILE.pkl      nanoGPT's meta.pkl, or a pickled tokenizer; only where pickles are allowed

What a text says is never a special token, even where it spells one.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gptopt.data import gpt2
from gptopt.data.corpus import DataError, MissingDataError

ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[EOS]", "[SEP]")
"""How tokens that end a text are spelled; the first that a vocabulary has is taken."""
CHARACTERS = "characters"


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back.

    Attributes:
        name: As given, or the name of its file.
        vocab_size: Every id is below it.
        end_of_text: The id that starts each document; ``encode`` never gives it, but for
            ``bytes``, where it is byte 0.
        encode: Text -> ids, shape (n,), the smallest unsigned type that holds all ids.
        decode: Any ids -> text.
        sha256: Of the vocabulary.
        file: The vocabulary, where it is one file.
    """

    name: str
    vocab_size: int
    end_of_text: int
    encode: Callable[[str], np.ndarray]
    decode: Callable[[Sequence[int]], str]
    sha256: str
    file: Path | None = None


def id_type(vocab_size: int) -> np.dtype:
    """The smallest of uint8, uint16 and uint32 that holds all ids below ``vocab_size``."""
    return np.min_scalar_type(vocab_size - 1)


def load_tokenizer(name: str, data_root: Path, *, allow_pickle: bool) -> Tokenizer:
    """The tokenizer ``name``: bytes, gpt2, or a file (relative to ``data_root``).

    Args:
        name: See above.
        data_root: Where vocabularies lie.
        allow_pickle: Open a .pkl file, which runs whatever code is in it.

    Raises:
        DataError: An unknown name, a damaged vocabulary, or a pickle that is not allowed.
        MissingDataError: No such file, or no package that reads it.
    """
    if name == "bytes":
        # No UTF-8 text holds byte 0 unless it means to, so it can mark where documents start.
        return Tokenizer(name, 256, 0, _bytes_of, _text_of, hashlib.sha256(b"bytes").hexdigest())
    if name == "gpt2":
        directory = data_root / "tokenizers" / "gpt2"
        encode, decode, sha256 = gpt2.load(directory)
        return Tokenizer(name, gpt2.VOCAB, gpt2.END_OF_TEXT, encode, decode, sha256)
    path = data_root / Path(name).expanduser()
    if path.suffix not in (".json", ".pkl"):
        raise DataError(
            f"tokenizer {name!r}: it takes bytes, gpt2, or a file that ends in .json (of "
            "`gptopt data train-tokenizer` or the tokenizers package) or .pkl."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingDataError(
            f"tokenizer {name!r}: {path} cannot be read: {error.strerror}. Copy the file there, "
            "or train one: gptopt data train-tokenizer --help"
        ) from error
    if path.suffix == ".pkl":
        if not allow_pickle:
            raise DataError(
                f"{path}: opening a pickle runs the code in it. Where you trust the file, give "
                "--allow-pickle; better, convert it to JSON."
            )
        tokenizer = _pickled(content, path)
    else:
        tokenizer = _json(content, path)
    return replace(tokenizer, name=path.name, sha256=hashlib.sha256(content).hexdigest(), file=path)


def _bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _text_of(ids: Sequence[int]) -> str:
    return bytes(number % 256 for number in ids).decode("utf-8", "replace")


def _json(content: bytes, path: Path) -> Tokenizer:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged, not JSON: {error}. Bring it again.") from error
    if isinstance(fields, dict) and fields.get("kind") == CHARACTERS:
        characters = fields.get("characters")
        if not isinstance(characters, str) or not characters:
            raise DataError(f"{path}: no text under 'characters'. Train it again.")
        return _characters({character: number for number, character in enumerate(characters)})
    try:
        package = import_module("tokenizers")
    except ImportError as error:
        raise MissingDataError(f"{path} is read by a package: pip install tokenizers") from error
    try:
        vocabulary = package.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the package raises bare Exception
        raise DataError(f"{path}: the tokenizers package cannot read it: {error}.") from error
    return _of_package(vocabulary, path)


def _of_package(vocabulary: Any, path: Path) -> Tokenizer:
    # One process is one core here; threads of the package would only fight over it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    ids = vocabulary.get_vocab(with_added_tokens=True)
    end_of_text = next((ids[end] for end in ENDS if end in ids), None)
    if end_of_text is None:
        raise DataError(
            f"{path}: no token that ends a text; looked for {', '.join(ENDS)}. Add one of them to "
            "the vocabulary as a special token."
        )
    vocabulary.encode_special_tokens = True  # as text, that is
    vocabulary.no_padding()
    vocabulary.no_truncation()
    size = max(ids.values()) + 1
    dtype = id_type(size)

    def encode(text: str) -> np.ndarray:
        # The batch call without offsets takes two thirds of the time of the plain one.
        encoded = vocabulary.encode_batch_fast([text], add_special_tokens=False)[0]
        return np.array(encoded.ids, dtype=dtype)

    def decode(numbers: Sequence[int]) -> str:
        return vocabulary.decode(list(map(int, numbers)), skip_special_tokens=False)

    return Tokenizer(path.name, size, end_of_text, encode, decode, "")


def _characters(ids: dict[str, int]) -> Tokenizer:
    """One id a character; the id after the last one ends a text."""
    codes = np.array(sorted(map(ord, ids)), dtype=np.uint32)
    numbers = np.array([ids[chr(code)] for code in codes])
    end_of_text = max(ids.values()) + 1
    letters = {number: character for character, number in ids.items()}
    dtype = id_type(end_of_text + 1)

    def encode(text: str) -> np.ndarray:
        given = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        places = np.searchsorted(codes, given).clip(max=len(codes) - 1)
        unknown = codes[places] != given
        if unknown.any():
            at = int(np.argmax(unknown))
            raise DataError(
                f"Character {at} of the text is {text[at]!r}, which the vocabulary of "
                f"{len(codes)} characters has not. Train it on all of the text."
            )
        return numbers[places].astype(dtype)

    def decode(given: Sequence[int]) -> str:
        return "".join(letters.get(int(number), "\n") for number in given)

    return Tokenizer(CHARACTERS, end_of_text + 1, end_of_text, encode, decode, "")


def _pickled(content: bytes, path: Path) -> Tokenizer:
    """nanoGPT's ``meta.pkl`` (``stoi``), or a tokenizer of transformers or tiktoken."""
    try:
        pickled = pickle.loads(content)  # noqa: S301 -- asked for by name
    except Exception as error:
        raise DataError(f"{path}: cannot be unpickled: {error!r}.") from error
    if isinstance(pickled, dict) and isinstance(pickled.get("stoi"), dict):
        return _characters(pickled["stoi"])
    if hasattr(pickled, "encode_ordinary"):  # tiktoken
        encode_ids, size, end = pickled.encode_ordinary, pickled.n_vocab, pickled.eot_token
    elif hasattr(pickled, "eos_token_id") and hasattr(pickled, "encode"):  # transformers
        size, end = len(pickled), pickled.eos_token_id

        def encode_ids(text: str) -> list[int]:
            return pickled.encode(text, add_special_tokens=False)
    else:
        raise DataError(
            f"{path}: holds a {type(pickled).__name__}; known are nanoGPT's meta.pkl and "
            "tokenizers of transformers and tiktoken."
        )
    dtype = id_type(size)
    return Tokenizer(
        path.name,
        size,
        end,
        lambda text: np.array(encode_ids(text), dtype=dtype),
        lambda numbers: pickled.decode(list(map(int, numbers))),
        "",
    )
