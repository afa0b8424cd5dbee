"""Modular addition: problems ``a b = c`` with c = (a + b) mod ``modulus`` and = as id ``modulus``.

``train_share`` of the modulus^2 pairs (a, b) are trained on, chosen by a hash; the held-out part
asks for the others, so it tells a rule that was found from answers that were learnt by heart
(Power et al., 2022, "Grokking"). The two numbers are unknown, the rest follows: knowing the rule,
but not which pairs are held out, at best

    2 ln(modulus) / 4   nats per token.
"""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np

from gptopt.config.types import Count, PositiveInt, Share
from gptopt.data.corpus import Corpus, DataError
from gptopt.data.hashing import draws, fingerprint, permutations


def build(
    *,
    data_root: Path,
    seed: Count,
    tokens: PositiveInt,
    val_tokens: PositiveInt,
    modulus: PositiveInt,
    train_share: Share,
) -> Corpus:
    """Draws problems of the pairs of each part."""
    pairs = permutations(seed, 0, 0, 1, modulus**2)[0]
    trained = int(train_share * modulus**2)
    if not 0 < trained < modulus**2:
        raise DataError(
            f"data.train_share={train_share}: of {modulus**2} pairs {trained} would be trained on. "
            "Both parts take at least one; raise data.modulus or change the share."
        )
    train = _problems(seed, 1, tokens, pairs[:trained], modulus)
    val = _problems(seed, 2, val_tokens, pairs[trained:], modulus)
    return Corpus(
        train,
        val,
        fingerprint([("train", train.tobytes()), ("val", val.tobytes())]),
        vocab_size=modulus + 1,
        files={},
        best_loss=2 * log(modulus) / 4,
    )


def _problems(seed: int, stream: int, tokens: int, pairs: np.ndarray, modulus: int) -> np.ndarray:
    """``tokens`` ids of problems whose pairs are drawn from ``pairs``, all equally likely."""
    count = -(-tokens // 4)
    a, b = np.divmod(pairs[draws(seed, stream, 0, count, len(pairs))], modulus)
    rows = np.stack([a, b, np.full(count, modulus), (a + b) % modulus], axis=1)
    return rows.astype(np.min_scalar_type(modulus)).reshape(-1)[:tokens]
