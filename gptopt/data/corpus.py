"""What a corpus is: two sequences of token ids, and the error that refuses a bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gptopt.state import ExitCode


class DataError(ValueError):
    """Data that cannot be trained on: names the file, the place in it and what to do."""

    exit_code = ExitCode.DATA


class MissingDataError(DataError):
    """Nothing at the path that the config names."""


class TokenSource(Protocol):
    """Token ids 0, 1, ... ``len - 1`` in order; a numpy array is one, so is ``Shards``.

    Slices are contiguous with ``0 <= start <= stop <= len`` and give uint8, uint16 or uint32.
    """

    @property
    def dtype(self) -> np.dtype:
        """Type of the ids."""

    def __len__(self) -> int: ...

    def __getitem__(self, window: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Corpus:
    """An opened data set.

    Attributes:
        train, val: Tokens to train on and tokens held out; they do not overlap.
        fingerprint: sha256 (hex) over the contents and the split. The format's file says how.
        vocab_size: Every id the tokenizer can give is below it.
        files: A checksum or a summary of each file, by name.
    """

    train: TokenSource
    val: TokenSource
    fingerprint: str
    vocab_size: int
    files: dict[str, str]


def split_tail(
    tokens: np.ndarray, val_split: int | float, origin: str
) -> tuple[np.ndarray, np.ndarray]:
    """Splits ``tokens`` into (train, val), where val is the tail.

    Args:
        tokens: Shape (n,).
        val_split: Length of val: tokens if an int, the share of all tokens (rounded down) if a
            float.
        origin: What the tokens are, for the message.

    Raises:
        DataError: Where either part would be empty.
    """
    held_out = val_split if isinstance(val_split, int) else int(val_split * len(tokens))
    if not 0 < held_out < len(tokens):
        raise DataError(
            f"{origin} has {len(tokens):,} tokens; data.val_split={val_split} would hold out "
            f"{held_out:,} of them and must leave both parts some. Give a number of tokens (int) "
            "or a share between 0 and 1 (float)."
        )
    return tokens[:-held_out], tokens[-held_out:]
