"""The order of several sources: which of them a sample reads, and how far that one has come.

Weighted. With weights w_s the shares are whole numbers a_s / L of a pattern of L samples that
repeats for ever. In it the j-th sample of source s (j = 1, 2, ...) has the place p with

    floor((j - 1) L / a_s) + 1  <=  p  <=  ceil(j L / a_s)                       (1)

so that after any number m of samples source s was read |c_s - m a_s / L| < 1 times off its
share. Places are given to the earliest deadline among those that may start, which finds such a
schedule because there is one (Steiner and Yeomans, 1993, "Level schedules for mixed-model,
just-in-time processes"; Tijdeman, 1980, "The chairman assignment problem").

Sequential. Source after source, each with all of its windows; the next epoch starts again.

Either way sample i is a function of i alone, in constant time, so a run resumes anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from gptopt.config.data_rules import whole_shares
from gptopt.data.corpus import DataError, Tokens, mixture_of


def interleave(shares: Sequence[int]) -> np.ndarray:
    """The pattern of equation (1).

    Args:
        shares: Samples of each source in the pattern, L in all, each at least 1.

    Returns:
        Number of the source for each place, shape (L,), int64.
    """
    length = sum(shares)
    given = [0] * len(shares)
    pattern = np.empty(length, dtype=np.int64)
    for place in range(1, length + 1):
        deadlines = [
            (-(-(done + 1) * length // share), number)
            for number, (done, share) in enumerate(zip(given, shares, strict=True))
            if done < share and done * length // share < place
        ]
        number = min(deadlines)[1]
        given[number] += 1
        pattern[place - 1] = number
    return pattern


class MixedOrder:
    """Sample number -> (source, how many samples of that source came before).

    Args:
        windows: Windows of each source.
        weights: Weight of each source; not read where ``mix`` is "sequential".
        mix: As in ``Mixture``.
    """

    def __init__(
        self,
        windows: Sequence[int],
        weights: Sequence[float],
        mix: Literal["weighted", "sequential"],
    ) -> None:
        self.windows = windows
        self.total = sum(windows)
        """Samples of an epoch."""
        self._starts: np.ndarray | None = None
        if mix == "sequential":
            self._length = self.total
            self._shares = np.array(windows, dtype=np.int64)
            self._starts = np.cumsum(self._shares) - self._shares
            return
        shares = whole_shares(weights)
        self._length = sum(shares)
        self._shares = np.array(shares, dtype=np.int64)
        self._pattern = interleave(shares)
        self._before = np.empty(self._length, dtype=np.int64)
        for number, share in enumerate(shares):
            self._before[self._pattern == number] = np.arange(share)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, samples of it before) of each of ``samples``; all int64 of one shape."""
        rounds, places = np.divmod(samples, self._length)
        if self._starts is None:
            numbers, before = self._pattern[places], self._before[places]
        else:
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            before = places - self._starts[numbers]
        return numbers, rounds * self._shares[numbers] + before

    def counts(self, samples: int) -> list[int]:
        """How many of the first ``samples`` samples each source gives."""
        rounds, rest = divmod(samples, self._length)
        if self._starts is None:
            begun = np.bincount(self._pattern[:rest], minlength=len(self.windows))
        else:
            begun = np.clip(rest - self._starts, 0, self._shares)
        return (rounds * self._shares + begun).tolist()


def windows_in(tokens: Tokens, context_length: int) -> list[int]:
    """Windows of each part: whole ones, with the token after each."""
    parts = mixture_of(tokens).parts
    return [max(0, len(part.tokens) - 1) // context_length for part in parts]


def mixed_order(tokens: Tokens, context_length: int) -> MixedOrder:
    """Which source each sample reads, and how many windows there are.

    Raises:
        DataError: A source has not even one window.
    """
    mixture = mixture_of(tokens)
    for part in mixture.parts:
        if len(part.tokens) <= context_length:
            name = f"{part.label}: " if part.label else ""
            raise DataError(
                f"{name}{len(part.tokens):,} tokens; context_length={context_length} takes at "
                f"least {context_length + 1:,}. Use a larger corpus or a shorter context."
            )
    weights = [part.weight for part in mixture.parts]
    return MixedOrder(windows_in(tokens, context_length), weights, mixture.mix)
