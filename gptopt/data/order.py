"""The order of training windows: a permutation computed, not stored.

Sample number s (counted over all ranks and epochs) of a source with n windows reads the window

    P_(seed, epoch)(s mod n)   with   epoch = s div n                              (1)

P is a Feistel network on a rectangle of a x b >= n cells (Black and Rogaway, 2002, "Ciphers with
arbitrary finite domains", their generalized Feistel cipher). An index x = b l + r holds
0 <= l < a and 0 <= r < b, and every round replaces one half by a bijection of it:

    l <- (l + F_k(r)) mod a   in even rounds,   r <- (r + F_k(l)) mod b   in odd rounds    (2)

Where P leaves [0, n), it is applied again until it comes back (cycle walking): still a
permutation, and seldom needed, since a b - n < a.

A source of which only some tokens are in memory is read in blocks of k windows that fit there.
With m = n div k whole blocks, sample s mod n = k j + i of an epoch reads, with permutations of
range(m) and range(k),

    k b + P_(seed block b, epoch)(i)   where   b = P_(seed blocks, epoch)(j)   for j < m      (3)

and the n - k m windows that are left, b = m, come last. With k >= n this is not used, but (1).
"""

from __future__ import annotations

import hashlib
from math import isqrt

import numpy as np

from gptopt.data.hashing import mix64


def permute(index: np.ndarray, size: int, seed: int | str, epoch: int) -> np.ndarray:
    """Applies the permutation of ``range(size)`` that belongs to (seed, epoch).

    Args:
        index: Any shape, uint64, values below ``size``.
        size: Number of elements, at least 1.
        seed: Any integer, or any text.
        epoch: Counted from 0.

    Returns:
        Same shape and dtype as ``index``.
    """
    digest = hashlib.sha512(f"gptopt order 1: {seed} {epoch}".encode()).digest()
    keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)  # eight rounds, four a half
    a = isqrt(size - 1) + 1
    b = -(-size // a)
    permuted = _feistel(index, np.uint64(a), np.uint64(b), keys)
    while (outside := permuted >= size).any():
        permuted[outside] = _feistel(permuted[outside], np.uint64(a), np.uint64(b), keys)
    return permuted


def _feistel(index: np.ndarray, a: np.uint64, b: np.uint64, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(index, b)
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        left = (left + mix64(right ^ even) % a) % a  # (2); F is reduced first: no overflow
        right = (right + mix64(left ^ odd) % b) % b
    return left * b + right


def windows_of(
    first: int, count: int, windows: int, seed: int | str, *, block: int | None = None
) -> np.ndarray:
    """Windows that samples ``first`` ... ``first + count - 1`` read, int64.

    Args:
        first: Sample number, over all epochs.
        count: How many.
        windows: Of the source.
        seed: Any integer, or any text.
        block: Equation (3) with k = ``block``; None for equation (1).
    """
    if block is None or block >= windows:
        block = windows
    order = np.empty(count, dtype=np.uint64)
    done = 0
    while done < count:
        epoch, index = divmod(first + done, windows)
        turn, within = divmod(index, block)
        whole, number, key = windows // block, turn, seed
        size = block if turn < whole else windows - whole * block
        if block < windows:
            if turn < whole:
                place = np.array([turn], dtype=np.uint64)
                number = int(permute(place, whole, f"{seed} blocks", epoch)[0])
            key = f"{seed} block {number}"
        length = min(count - done, size - within)
        inside = np.arange(within, within + length, dtype=np.uint64)
        order[done : done + length] = number * block + permute(inside, size, key, epoch)
        done += length
    return order.astype(np.int64)
