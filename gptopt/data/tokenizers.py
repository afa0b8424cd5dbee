"""Tokenizers that ``gptopt data prepare`` knows. Vocabularies are local files, never downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gptopt.data.corpus import DataError, MissingDataError

NAMES = ("bytes", "gpt2")
GPT2_VOCAB = 50257
GPT2_END_OF_TEXT = 50256
GPT2_URL = "https://huggingface.co/openai-community/gpt2/resolve/main"
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts a text into the pieces that are encoded one by one (Radford et al., 2019)."""


@dataclass(frozen=True)
class Tokenizer:
    """``encode`` gives the ids of a text, without ``end_of_text``, which starts a document."""

    name: str
    vocab_size: int
    end_of_text: int
    encode: Callable[[str], np.ndarray]


def load_tokenizer(name: str, data_root: Path) -> Tokenizer:
    """The tokenizer ``name``; GPT-2's files lie in ``<data_root>/tokenizers/gpt2``.

    Raises:
        DataError: An unknown name, or a vocabulary that is not GPT-2's.
        MissingDataError: No vocabulary files, or neither tiktoken nor tokenizers is installed.
    """
    if name == "bytes":
        # No UTF-8 text holds byte 0 unless it means to, so it can mark where documents start.
        return Tokenizer(name, 256, 0, lambda text: np.frombuffer(text.encode(), dtype=np.uint8))
    if name != "gpt2":
        raise DataError(f"tokenizer {name!r}: gptopt data prepare knows {', '.join(NAMES)}.")
    vocabulary, merges = _gpt2_files(data_root / "tokenizers" / "gpt2")
    if find_spec("tiktoken"):
        encode = _with_tiktoken(vocabulary)
    elif find_spec("tokenizers"):
        encode = _with_tokenizers(vocabulary, merges)
    else:
        raise MissingDataError("The gpt2 tokenizer runs on a package: pip install tiktoken")
    return Tokenizer(name, GPT2_VOCAB, GPT2_END_OF_TEXT, encode)


def _gpt2_files(directory: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token -> id, merges in their order) from vocab.json and merges.txt."""
    vocab_path, merges_path = directory / "vocab.json", directory / "merges.txt"
    for path in (vocab_path, merges_path):
        if not path.is_file():
            raise MissingDataError(
                f"The gpt2 tokenizer reads {path}, which is not there, and downloads nothing. "
                "Where there is a network:\n"
                f"curl -L --create-dirs -o {path} {GPT2_URL}/{path.name}"
            )
    try:
        vocabulary: dict[str, int] = json.loads(vocab_path.read_text(encoding="utf-8"))
        lines = merges_path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise DataError(f"{directory}: a damaged file: {error}. Bring it again.") from error
    merges = [(left, right) for line in lines[1:] if line for left, right in [line.split(" ")]]
    # 256 bytes, the merges in order, the end of the text: nothing else is GPT-2's.
    expected = 256 + len(merges) + 1
    end = vocabulary.get("<|endoftext|>")
    if (len(vocabulary), expected, end) != (GPT2_VOCAB, GPT2_VOCAB, GPT2_END_OF_TEXT):
        raise DataError(
            f"{directory}: {len(vocabulary)} tokens, {len(merges)} merges, <|endoftext|> is {end}; "
            f"GPT-2 has {GPT2_VOCAB}, {GPT2_VOCAB - 257} and {GPT2_END_OF_TEXT}. "
            f"Bring {vocab_path.name} and {merges_path.name} of {GPT2_URL} again."
        )
    return vocabulary, merges


def _with_tiktoken(vocabulary: dict[str, int]) -> Callable[[str], np.ndarray]:
    tiktoken = import_module("tiktoken")
    to_byte = {character: byte for byte, character in _byte_characters().items()}
    ranks = {
        bytes(to_byte[character] for character in token): number
        for token, number in vocabulary.items()
        if number != GPT2_END_OF_TEXT
    }
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    return lambda text: np.array(encoding.encode_ordinary(text), dtype=np.uint16)


def _with_tokenizers(
    vocabulary: dict[str, int], merges: list[tuple[str, str]]
) -> Callable[[str], np.ndarray]:
    tokenizers = import_module("tokenizers")
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: np.array(encoder.encode(text).ids, dtype=np.uint16)


def _byte_characters() -> dict[int, str]:
    """byte -> the printable character that stands for it in GPT-2's vocabulary files.

    Printable Latin-1 stands for itself; the other bytes, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + number) for number, byte in enumerate(others)
    }
