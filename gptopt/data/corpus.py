"""What a corpus is: token ids to train on and held out, and the error that refuses a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
    A source may have

        boundaries  int64 in ascending order: where its documents start
        buffer      int, tokens among which its windows are shuffled; 0: they are not
        max_id      int, the highest id in it
    """

    @property
    def dtype(self) -> np.dtype:
        """Type of the ids."""

    def __len__(self) -> int: ...

    def __getitem__(self, window: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Part:
    """One source of a mixture: ``weight`` windows of it for every ``weight`` of the others."""

    label: str
    tokens: TokenSource
    weight: float


@dataclass(frozen=True)
class Mixture:
    """Several sources that are read together.

    Attributes:
        parts: At least one; their labels differ.
        mix: "weighted": in every stretch of windows each part has its share by weight;
            "sequential": one part after the other, each once an epoch.
    """

    parts: tuple[Part, ...]
    mix: Literal["weighted", "sequential"]

    def __len__(self) -> int:
        return sum(len(part.tokens) for part in self.parts)


Tokens = TokenSource | Mixture


def mixture_of(tokens: Tokens) -> Mixture:
    """A single source is a mixture of one part, whose label is empty."""
    return tokens if isinstance(tokens, Mixture) else Mixture((Part("", tokens, 1.0),), "weighted")


@dataclass(frozen=True)
class Corpus:
    """An opened data set.

    Attributes:
        train, val: Tokens to train on and tokens held out; they do not overlap.
        fingerprint: sha256 (hex) over the contents and the split. The format's file says how.
        vocab_size: Every id the tokenizer can give is below it.
        files: A checksum or a summary of each file, by name.
        evals: Further sets to evaluate on, by label.
        tests: Sets for one evaluation at the end of a run, by label.
        best_loss: Nats per token that no model can go below, where that is known: the entropy of
            a task that was made, given all that came before.
    """

    train: Tokens
    val: Tokens
    fingerprint: str
    vocab_size: int
    files: dict[str, str]
    evals: Mapping[str, Tokens] = field(default_factory=dict)
    tests: Mapping[str, Tokens] = field(default_factory=dict)
    best_loss: float | None = None


class Stretch:
    """Tokens ``start`` ... ``stop - 1`` of a source, as a source; nothing is copied."""

    def __init__(self, source: TokenSource, start: int, stop: int) -> None:
        self.source, self.start, self.stop = source, start, stop
        self.dtype = source.dtype
        boundaries = getattr(source, "boundaries", None)
        if boundaries is not None:
            first, last = np.searchsorted(boundaries, [start, stop])
            self.boundaries = boundaries[first:last] - start
        for name in ("buffer", "max_id"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, window: slice) -> np.ndarray:
        return self.source[self.start + window.start : self.start + window.stop]


def single(tokens: Tokens) -> TokenSource:
    """``tokens``, which the config's checks have seen to be no mixture."""
    assert not isinstance(tokens, Mixture)
    return tokens


def limited(tokens: TokenSource, most: int | None, origin: str) -> TokenSource:
    """The first ``most`` tokens of a source; None for all of it.

    Raises:
        DataError: There are fewer.
    """
    if most is None:
        return tokens
    if most > len(tokens):
        raise DataError(
            f"{origin}.max_tokens={most}: there are {len(tokens):,} training tokens. Give at most"
            " that, or null for all of them."
        )
    return Stretch(tokens, 0, most)


def split_tail(
    tokens: np.ndarray, val_split: int | float | None, origin: str
) -> tuple[np.ndarray, np.ndarray]:
    """Splits ``tokens`` into (train, val), where val is the tail.

    Args:
        tokens: Shape (n,).
        val_split: Length of val: tokens if an int, the share of all tokens (rounded down) if a
            float, and nothing if None.
        origin: What the tokens are, for the message.

    Raises:
        DataError: Where either part would be empty.
    """
    if val_split is None:
        return tokens, tokens[:0]
    held_out = val_split if isinstance(val_split, int) else int(val_split * len(tokens))
    if not 0 < held_out < len(tokens):
        raise DataError(
            f"{origin} has {len(tokens):,} tokens; data.val_split={val_split} would hold out "
            f"{held_out:,} of them and must leave both parts some. Give a number of tokens (int) "
            "or a share between 0 and 1 (float)."
        )
    return tokens[:-held_out], tokens[-held_out:]
