"""From rows of tokens to a batch: inputs, targets, and where documents begin.

Legend: B windows of the batch, T = context_length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gptopt.data.checks import wrong_id
from gptopt.data.corpus import Stretch, TokenSource
from gptopt.data.shards import Shards

IGNORED = -100
"""The target that no loss counts; what torch's cross_entropy ignores, too."""


@dataclass(frozen=True)
class Reading:
    """How tokens become a batch; the keys of these names in the node ``data``.

    Attributes:
        documents: What a window does at the border of two documents. "plain": nothing;
            "reset_positions": positions start at 0 again; "mask": that, and attention stays
            inside a document.
        end_of_text: The id with which every document begins; None where the source knows its
            ``boundaries``, or for "plain".
        ignored_ids: Targets that count in no loss.
        ignored_range: Lowest and highest of further such targets, both included; None is open.
        vocab_size: A token id that is not below it is refused.
    """

    documents: Literal["plain", "reset_positions", "mask"]
    end_of_text: int | None
    ignored_ids: tuple[int, ...]
    ignored_range: tuple[int | None, int | None] | None
    vocab_size: int

    @classmethod
    def of(cls, data: Mapping[str, Any], vocab_size: int) -> Reading:
        """What the node ``data`` asks for, with the model's ``vocab_size``."""
        ignore = data["ignore"]
        lowest_highest = ignore["token_range"]
        return cls(
            documents=data["documents"],
            end_of_text=data["end_of_text"],
            ignored_ids=tuple(ignore["token_ids"]),
            ignored_range=None if lowest_highest is None else tuple(lowest_highest),
            vocab_size=vocab_size,
        )

    @property
    def ignores(self) -> bool:
        """Whether some targets may not count, so that batches count unequally many."""
        return bool(self.ignored_ids) or self.ignored_range is not None

    def ignored(self, targets: np.ndarray) -> np.ndarray:
        """Which targets do not count; any shape."""
        found = np.isin(targets, self.ignored_ids)
        if self.ignored_range is not None:
            lowest, highest = self.ignored_range
            inside = np.ones_like(found)
            if lowest is not None:
                inside &= targets >= lowest
            if highest is not None:
                inside &= targets <= highest
            found |= inside
        return found


class Batch(NamedTuple):
    """Windows of tokens, all (B, T) int64; a target is the token after its input.

    ``positions`` count from the start of each document, ``documents`` number them within a
    window; both are None where the model is not to know.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor | None = None
    documents: Tensor | None = None

    @property
    def borders(self) -> dict[str, Tensor]:
        """What a model's forward takes beside the tokens."""
        named = {"positions_BT": self.positions, "documents_BT": self.documents}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Made(NamedTuple):
    """A batch before it goes to its device: in one piece what can be, since that copies fastest.

    ``tokens`` (B, T + 1); ``targets`` only where some of them do not count.
    """

    tokens: Tensor
    targets: Tensor | None = None
    positions: Tensor | None = None
    documents: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``; from pinned memory the copy runs beside the computation."""
        tokens, targets, positions, documents = (
            tensor if tensor is None else tensor.to(device, non_blocking=True) for tensor in self
        )
        assert tokens is not None
        if targets is None:
            targets = tokens[:, 1:]
        return Batch(tokens[:, :-1], targets, positions, documents)


def read_rows(source: TokenSource, starts: np.ndarray, rows: Sequence[np.ndarray]) -> None:
    """Copies the tokens from ``starts[i]`` on into ``rows[i]``, of the type of ``source``.

    Raises:
        DataError: A file ended early.
    """
    while isinstance(source, Stretch):
        starts, source = starts + source.start, source.source
    if isinstance(source, Shards):
        source.fill_rows(starts, rows)
    else:
        for row, start in zip(rows, starts.tolist(), strict=True):
            row[:] = source[start : start + len(row)]


def check_rows(source: TokenSource, starts: np.ndarray, rows: np.ndarray, vocab_size: int) -> None:
    """Refuses a token id that is not below ``vocab_size`` in ``rows`` (n, length), as read.

    Raises:
        DataError: Names the first, its file and its offset.
    """
    if rows.size and int(rows.max()) >= vocab_size:
        number, at = (int(i) for i in np.argwhere(rows >= vocab_size)[0])
        raise wrong_id(source, int(starts[number]) + at, int(rows[number, at]), vocab_size)


def make(rows: np.ndarray, begins: np.ndarray | None, reading: Reading, *, pinned: bool) -> Made:
    """A batch of ``rows`` (B, T + 1) of tokens, in memory of its own.

    Args:
        rows: Inputs, and one token more for the last target.
        begins: (B, T) bool, inputs that begin a document; None for ``documents="plain"``.
        reading: What is asked for.
        pinned: In page-locked memory, from which a GPU copies by itself.
    """
    targets = positions_BT = documents_BT = None
    if reading.ignores:
        targets = _tensor(rows[:, 1:], pinned)
        targets.numpy()[reading.ignored(rows[:, 1:])] = IGNORED
    if begins is not None:
        positions, documents = _documents(begins)
        positions_BT = _tensor(positions, pinned)
        if reading.documents == "mask":
            documents_BT = _tensor(documents, pinned)
    return Made(_tensor(rows, pinned), targets, positions_BT, documents_BT)


def _documents(begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place in its document, and number of that in the window, of each input; both (B, T)."""
    windows, length = begins.shape
    begins = begins.copy()
    begins[:, 0] = True  # what is left of a document
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=begins.size)
    positions = np.arange(begins.size) - np.repeat(starts, sizes)
    row = starts // length
    numbers = np.arange(len(starts)) - np.searchsorted(row, np.arange(windows))[row]
    return positions.reshape(begins.shape), np.repeat(numbers, sizes).reshape(begins.shape)


def _tensor(values: np.ndarray, pinned: bool) -> Tensor:
    tensor = torch.empty(values.shape, dtype=torch.int64, pin_memory=pinned)
    tensor.numpy()[:] = values
    return tensor


def document_starts(
    source: TokenSource, starts: np.ndarray, rows: np.ndarray, reading: Reading
) -> np.ndarray:
    """Which inputs begin a document, bool (n, T) for ``rows`` (n, T + 1)."""
    if reading.end_of_text is not None:
        return rows[:, :-1] == reading.end_of_text
    boundaries: np.ndarray = source.boundaries  # type: ignore[attr-defined]
    length = rows.shape[1] - 1
    begins = np.zeros((len(rows), length), dtype=bool)
    limits = np.searchsorted(boundaries, np.stack([starts, starts + length], axis=1))
    for row, start, (first, last) in zip(begins, starts, limits, strict=True):
        row[boundaries[first:last] - start] = True
    return begins


def counted(batches: Sequence[Batch]) -> Tensor:
    """How many targets of ``batches`` count: int64, on their device."""
    return torch.stack([(batch.targets != IGNORED).sum() for batch in batches]).sum()
