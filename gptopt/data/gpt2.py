"""GPT-2's byte-level BPE, from its two vocabulary files (Radford et al., 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gptopt.data.corpus import DataError, MissingDataError

VOCAB = 50257
END_OF_TEXT = 50256
URL = "https://huggingface.co/openai-community/gpt2/resolve/main"
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts a text into the pieces that are encoded one by one."""

Encode = Callable[[str], np.ndarray]
Decode = Callable[[Sequence[int]], str]


def load(directory: Path) -> tuple[Encode, Decode, str]:
    """Encoder, decoder and sha256 of ``vocab.json`` and ``merges.txt`` in ``directory``.

    Raises:
        DataError: The files are not GPT-2's.
        MissingDataError: They are not there, or neither tiktoken nor tokenizers is installed.
    """
    vocabulary, merges, sha256 = _files(directory)
    if find_spec("tiktoken"):
        encode = with_tiktoken(vocabulary)
    elif find_spec("tokenizers"):
        encode = with_tokenizers(vocabulary, merges)
    else:
        raise MissingDataError("The gpt2 tokenizer runs on a package: pip install tiktoken")
    return encode, decoder(vocabulary), sha256


def _files(directory: Path) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """(token -> id, merges in their order, sha256 of both files)."""
    vocab_path, merges_path = directory / "vocab.json", directory / "merges.txt"
    for path in (vocab_path, merges_path):
        if not path.is_file():
            raise MissingDataError(
                f"The gpt2 tokenizer reads {path}, which is not there, and downloads nothing. "
                "Where there is a network:\n"
                f"curl -L --create-dirs -o {path} {URL}/{path.name}"
            )
    contents = vocab_path.read_bytes(), merges_path.read_bytes()
    try:
        vocabulary: dict[str, int] = json.loads(contents[0])
        lines = contents[1].decode("utf-8").splitlines()
        merges = [(left, right) for line in lines[1:] if line for left, right in [line.split(" ")]]
        end = vocabulary.get("<|endoftext|>")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{directory}: a damaged file: {error}. Bring it again.") from error
    # 256 bytes, the merges in order, the end of the text: nothing else is GPT-2's.
    expected = 256 + len(merges) + 1
    if (len(vocabulary), expected, end) != (VOCAB, VOCAB, END_OF_TEXT):
        raise DataError(
            f"{directory}: {len(vocabulary)} tokens, {len(merges)} merges, <|endoftext|> is {end}; "
            f"GPT-2 has {VOCAB}, {VOCAB - 257} and {END_OF_TEXT}. "
            f"Bring {vocab_path.name} and {merges_path.name} of {URL} again."
        )
    return vocabulary, merges, hashlib.sha256(b"".join(contents)).hexdigest()


def with_tiktoken(vocabulary: dict[str, int]) -> Encode:
    """Encodes with tiktoken; ids as uint16."""
    tiktoken = import_module("tiktoken")
    ranks = {
        spelled: number
        for number, spelled in spellings(vocabulary).items()
        if number != END_OF_TEXT
    }
    encoding = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})

    def encode(text: str) -> np.ndarray:
        return encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint16)

    return encode


def with_tokenizers(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Encode:
    """Encodes with tokenizers; ids as uint16."""
    tokenizers = import_module("tokenizers")
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: np.array(encoder.encode(text).ids, dtype=np.uint16)


def decoder(vocabulary: dict[str, int]) -> Decode:
    """Ids to text; bytes that are no UTF-8 become U+FFFD."""
    spelled = spellings(vocabulary)
    return lambda ids: b"".join(spelled[int(number)] for number in ids).decode("utf-8", "replace")


def spellings(vocabulary: dict[str, int]) -> dict[int, bytes]:
    """id -> its bytes."""
    to_byte = {character: byte for byte, character in byte_characters().items()}
    return {
        number: bytes(to_byte[character] for character in token)
        for token, number in vocabulary.items()
    }


def byte_characters() -> dict[int, str]:
    """byte -> the printable character that stands for it in GPT-2's vocabulary files.

    Printable Latin-1 stands for itself; the other bytes, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + number) for number, byte in enumerate(others)
    }
