"""Fingerprints of contents, and the integer hash behind all pseudo-random choices of data.

numpy and ``random`` promise their streams only in part across versions; integers are the same
everywhere, so a data order made of them can be repeated years later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def fingerprint(parts: Iterable[tuple[str, bytes]]) -> str:
    """sha256 (hex) over named contents, in their order; each is framed by its length."""
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def mix64(values: np.ndarray) -> np.ndarray:
    """Hashes each uint64 to a uint64: the finaliser of SplitMix64 (Steele et al., 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)  # so that 0 is not a fixed point
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draws(seed: int, stream: int, first: int, count: int, below: int) -> np.ndarray:
    """Integers, uniform in [0, below) up to 2^-32, that depend on nothing but the arguments.

    Args:
        seed: Any whole number from 0.
        stream: Tells apart what is drawn for different purposes.
        first: Number of the first draw; draws are numbered from 0.
        count: How many.
        below: At most 2^32.

    Returns:
        Shape (count,), int64.
    """
    key = mix64(mix64(np.array([seed], dtype=np.uint64)) ^ np.uint64(stream))
    counter = np.arange(first, first + count, dtype=np.uint64)
    high = mix64(key ^ mix64(counter)) >> np.uint64(32)
    return ((high * np.uint64(below)) >> np.uint64(32)).astype(np.int64)


def permutations(seed: int, stream: int, first: int, count: int, size: int) -> np.ndarray:
    """Random orders of range(size), (count, size) int64; rows are numbered from ``first``."""
    keys = draws(seed, stream, first * size, count * size, 1 << 32).reshape(count, size)
    return np.argsort(keys, axis=1, kind="stable")  # equal keys are rare, and no matter
