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

from gptopt.data.batch import Batch, Made, Reading, check_rows, document_starts, make, read_rows
from gptopt.data.corpus import Tokens, TokenSource, mixture_of
from gptopt.data.mixture import mixed_order
from gptopt.data.order import windows_of
from gptopt.data.prefetch import Prefetch

AHEAD = 4096
"""Samples whose windows are computed at once: a permutation of few costs as much as of many."""


class Loader:
    """Endless batches of ``tokens``, in an order that is a function of (seed, epoch, index).

    The position is one number: ``samples``, windows read so far by all ranks together. Rank r
    takes the r-th block of ``batch_size`` samples of each ``batch_size * world_size``, so the
    global order stays the same when batch size, accumulation or world size change. ``mixture``
    says which source a sample reads, ``order`` which of its windows.

    Entered as a context manager, it ends its thread on the way out.

    Args:
        tokens: A source of at least ``context_length + 1`` tokens, or a mixture of such.
        context_length: T, tokens per window.
        batch_size: B, windows per call and rank.
        seed: Of the order; any integer.
        shuffle: False reads every epoch in the order of the source.
        rank, world_size: Which part of each global batch is this process's.
        reading: How tokens become a batch.
        prefetch: Batches made ahead in a thread; 0 makes each when it is asked for.
        device: Where batches go.

    Raises:
        DataError: If a source has not even one window.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        context_length: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
        reading: Reading,
        prefetch: int,
        device: torch.device,
    ) -> None:
        self.context_length = context_length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.reading = reading
        self.prefetch = prefetch
        self.device = device
        mixture = mixture_of(tokens)
        self.parts = mixture.parts
        # Labels keep the orders of two sources apart, and those of the others when one is added.
        self._seeds = [f"{seed} {p.label}" if p.label else seed for p in self.parts]
        self.mixed = mixed_order(tokens, context_length)
        self.windows = self.mixed.total
        """Windows per epoch."""
        self.samples = 0
        types = [part.tokens.dtype for part in self.parts]
        self._rows = np.empty((batch_size, context_length + 1), dtype=np.result_type(*types))
        self._each_row = list(self._rows)
        self._ahead_from = 0
        self._ahead = np.empty((2, 0), dtype=np.int64)
        self._thread: Prefetch[Made] | None = None

    @property
    def epoch(self) -> int:
        """The epoch, from 0, that the next sample belongs to."""
        return self.samples // self.windows

    def next_batch(self) -> Batch:
        """The next inputs and targets of this rank, (B, T), in memory of their own.

        Raises:
            DataError: A file has become shorter, or holds an id beyond the vocabulary.
        """
        if self.prefetch:
            if self._thread is None:
                first = self.samples
                self._thread = Prefetch(lambda: self._batches(first), self.prefetch)
            try:
                made = self._thread.get()
            except BaseException:
                self.close()
                raise
        else:
            made = self._batch(self.samples)
        self.samples += self.batch_size * self.world_size
        return made.to(self.device)

    def _batches(self, samples: int) -> Iterator[Made]:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # or pinning memory wakes the first GPU, too
        while True:
            yield self._batch(samples)
            samples += self.batch_size * self.world_size

    def _batch(self, samples: int) -> Made:
        """This rank's part of the global batch that begins with sample ``samples``."""
        first = samples + self.rank * self.batch_size
        numbers, windows = self._windows(first, self.batch_size)
        starts, rows, reading = windows * self.context_length, self._rows, self.reading
        begins = None
        if reading.documents != "plain":
            begins = np.zeros((len(rows), self.context_length), dtype=bool)
        for number, part in enumerate(self.parts):
            source, mine = part.tokens, np.flatnonzero(numbers == number)
            if not len(mine):
                continue
            if source.dtype == rows.dtype:
                read_rows(source, starts[mine], [self._each_row[row] for row in mine.tolist()])
            else:
                narrow = np.empty((len(mine), rows.shape[1]), dtype=source.dtype)
                read_rows(source, starts[mine], list(narrow))
                rows[mine] = narrow
            if begins is not None:
                begins[mine] = document_starts(source, starts[mine], rows[mine], reading)
        if int(rows.max()) >= reading.vocab_size:
            for number, part in enumerate(self.parts):
                mine = numbers == number
                check_rows(part.tokens, starts[mine], rows[mine], reading.vocab_size)
        return make(rows, begins, reading, pinned=self.device.type == "cuda")

    def _windows(self, first: int, count: int) -> np.ndarray:
        """``_order`` of the samples from ``first`` on, taken from those computed ahead."""
        begin = first - self._ahead_from
        if begin < 0 or begin + count > self._ahead.shape[1]:
            length = max(count, min(AHEAD, self.windows))
            self._ahead = self._order(first, length)
            self._ahead_from, begin = first, 0
        return self._ahead[:, begin : begin + count]

    def _order(self, first: int, count: int) -> np.ndarray:
        """Number of the source and window in it of each sample, (2, count) int64."""
        order = np.stack(self.mixed.locate(np.arange(first, first + count)))
        for number, windows in enumerate(self.mixed.windows):
            mine = order[0] == number
            if not (read := int(mine.sum())):
                continue
            before = order[1, mine]  # consecutive, as the samples are
            buffer = getattr(self.parts[number].tokens, "buffer", None)
            if self.shuffle and buffer != 0:
                block = buffer and max(1, buffer // self.context_length)
                order[1, mine] = windows_of(
                    int(before[0]), read, windows, self._seeds[number], block=block
                )
            else:
                order[1, mine] = before % windows
        return order

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"samples": self.samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to a position, which may come from another batch size or world size."""
        self.close()
        self.samples = state["samples"]

    def close(self) -> None:
        """Ends the thread; the next batch would start another."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def order_fingerprint(self) -> str:
        """sha256 (hex) of the order; equal for runs that read the same windows in turn.

        Covers windows per epoch, context_length, of a mixture its labels and windows, and the
        windows of the first samples (two epochs, at most 4096 samples): not batch size and
        ranks, on which the order does not depend, and not the tokens, which
        ``Corpus.fingerprint`` covers.
        """
        digest = hashlib.sha256(f"{self.windows} {self.context_length} ".encode())
        order = self._order(0, min(AHEAD, 2 * self.windows))
        if len(self.parts) > 1:
            for part, windows in zip(self.parts, self.mixed.windows, strict=True):
                digest.update(f"{part.label} {windows} ".encode())
            digest.update(order[0].astype("<i8").tobytes())
        digest.update(order[1].astype("<i8").tobytes())
        return digest.hexdigest()


def eval_windows(
    source: TokenSource,
    *,
    context_length: int,
    tokens: int | None,
    batch_size: int,
    rank: int,
    world_size: int,
    reading: Reading,
) -> Iterator[Made]:
    """Windows from the start of ``source`` that together predict exactly ``tokens`` tokens.

    The windows do not depend on ``batch_size`` and ``world_size``; rank r reads windows r,
    r + world_size, ... The last window may be shorter and then comes alone, so a loss over the
    set is the sum over tokens divided by their number, never a mean of batch means.

    Args:
        source: Held-out tokens.
        context_length: T, tokens per window.
        tokens: Targets to predict; None for all, that is ``len(source) - 1``.
        batch_size: Windows per batch.
        rank, world_size: Which of the windows are this process's.
        reading: How tokens become a batch.

    Yields:
        Batches of at most ``batch_size`` windows, to be sent to a device.
    """
    targets = len(source) - 1 if tokens is None else tokens
    assert 0 < targets < len(source), "check_enough comes first"
    whole, rest = divmod(targets, context_length)
    mine = np.arange(whole)[rank::world_size] * context_length
    groups = [
        (mine[first : first + batch_size], context_length)
        for first in range(0, len(mine), batch_size)
    ]
    if rest and whole % world_size == rank:
        groups.append((np.array([whole * context_length]), rest))
    for starts, length in groups:
        rows = np.empty((len(starts), length + 1), dtype=source.dtype)
        read_rows(source, starts, list(rows))
        check_rows(source, starts, rows, reading.vocab_size)
        begins = None
        if reading.documents != "plain":
            begins = document_starts(source, starts, rows, reading)
        yield make(rows, begins, reading, pinned=False)
