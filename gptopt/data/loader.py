"""Batches of windows for training, and the windows of an evaluation.

Legend: B windows of the batch, T = context_length.

Window w of a source covers its tokens [w T, w T + T]: T inputs x, and as targets y the same
tokens one place later. Windows share only the token at their border, so an epoch predicts every
token once. What is left at the end, fewer than T tokens, is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gptopt.data.corpus import DataError, TokenSource
from gptopt.data.order import windows_of
from gptopt.data.shards import Shards

AHEAD = 4096
"""Samples whose windows are computed at once: a permutation of few costs as much as of many."""


class Loader:
    """Endless batches of ``source`` in the order of (seed, epoch, index), see ``order``.

    The position is one number: ``samples``, windows read so far by all ranks together. Rank r
    takes the r-th block of ``batch_size`` samples of each ``batch_size * world_size``, so the
    global order stays the same when batch size, accumulation or world size change.

    Args:
        source: Tokens, at least ``context_length + 1`` of them.
        context_length: T, tokens per window.
        batch_size: B, windows per call and rank.
        seed: Of the order; any integer.
        shuffle: False reads every epoch in the order of the source.
        rank, world_size: Which part of each global batch is this process's.

    Raises:
        DataError: If the source has not even one window.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        context_length: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self.source = source
        self.context_length = context_length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.windows = (len(source) - 1) // context_length
        """Windows per epoch."""
        if self.windows < 1:
            raise DataError(
                f"{len(source):,} tokens; context_length={context_length} takes at least "
                f"{context_length + 1:,}. Use a larger corpus or a shorter context."
            )
        self.samples = 0
        self._rows = np.empty((batch_size, context_length + 1), dtype=source.dtype)
        self._ahead_from = 0
        self._ahead = np.empty(0, dtype=np.int64)

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next sample belongs to."""
        return self.samples // self.windows

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """The next inputs and targets of this rank, both (B, T) int64, in memory of their own."""
        windows = self._windows(self.samples + self.rank * self.batch_size, self.batch_size)
        self.samples += self.batch_size * self.world_size
        starts = (windows * self.context_length).tolist()
        return _inputs_and_targets(self.source, starts, self._rows)

    def _windows(self, first: int, count: int) -> np.ndarray:
        """Windows of the samples from ``first`` on, taken from those computed ahead."""
        begin = first - self._ahead_from
        if begin < 0 or begin + count > len(self._ahead):
            length = max(count, min(AHEAD, self.windows))
            self._ahead = self._order(first, length)
            self._ahead_from, begin = first, 0
        return self._ahead[begin : begin + count]

    def _order(self, first: int, count: int) -> np.ndarray:
        if self.shuffle:
            return windows_of(first, count, self.windows, self.seed)
        return np.arange(first, first + count) % self.windows

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"samples": self.samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to a position, which may come from another batch size or world size."""
        self.samples = state["samples"]

    def order_fingerprint(self) -> str:
        """sha256 (hex) of the order; equal for runs that read the same windows in turn.

        Covers windows per epoch, context_length and the windows of the first samples (two
        epochs, at most 4096 samples): not batch size and ranks, on which the order does not
        depend, and not the tokens, which ``Corpus.fingerprint`` covers.
        """
        digest = hashlib.sha256(f"{self.windows} {self.context_length} ".encode())
        digest.update(self._order(0, min(AHEAD, 2 * self.windows)).astype("<i8").tobytes())
        return digest.hexdigest()


def eval_windows(
    source: TokenSource,
    *,
    context_length: int,
    tokens: int | None,
    batch_size: int,
    rank: int,
    world_size: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows from the start of ``source`` that together predict exactly ``tokens`` tokens.

    The windows do not depend on ``batch_size`` and ``world_size``; rank r reads windows r,
    r + world_size, ... The last window may be shorter and then comes alone, so a loss over the
    set is the sum over tokens divided by ``tokens``, never a mean of batch means.

    Args:
        source: Held-out tokens.
        context_length: T, tokens per window.
        tokens: Targets to predict; None for all, that is ``len(source) - 1``.
        batch_size: Windows per batch.
        rank, world_size: Which of the windows are this process's.

    Yields:
        Inputs and targets, both (B, T) int64 with ``B <= batch_size``.
    """
    targets = len(source) - 1 if tokens is None else tokens
    assert 0 < targets < len(source), "check_enough comes first"
    whole, rest = divmod(targets, context_length)
    mine = range(whole)[rank::world_size]
    for first in range(0, len(mine), batch_size):
        starts = [window * context_length for window in mine[first : first + batch_size]]
        rows = np.empty((len(starts), context_length + 1), dtype=source.dtype)
        yield _inputs_and_targets(source, starts, rows)
    if rest and whole % world_size == rank:
        rows = np.empty((1, rest + 1), dtype=source.dtype)
        yield _inputs_and_targets(source, [whole * context_length], rows)


def _inputs_and_targets(
    source: TokenSource, starts: list[int], rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Copies one slice of ``source`` into each row, (B, T + 1), and splits it into (x, y)."""
    length = rows.shape[1]
    if isinstance(source, Shards):
        for row, start in enumerate(starts):
            source.fill(start, rows[row])
    else:
        for row, start in enumerate(starts):
            rows[row] = source[start : start + length]
    x_BT = torch.from_numpy(rows[:, :-1].astype(np.int64))
    y_BT = torch.from_numpy(rows[:, 1:].astype(np.int64))
    return x_BT, y_BT
