"""Tasks that are made up: the same tokens everywhere, by their rule, with a known best loss."""

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import yaml

from gptopt.data import DataError, open_corpus
from gptopt.layout import HYDRA_CONF


def task(name, **changes):
    data = yaml.safe_load((HYDRA_CONF / "data" / f"{name}.yaml").read_text()) | changes
    return open_corpus(data, "unused")


def all_of(corpus):
    return np.concatenate([corpus.train[0 : len(corpus.train)], corpus.val[0 : len(corpus.val)]])


def entropy(counts):
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


SHA256 = {
    "copy": "b43fe4cdeda42a1c53a46b0d64c8b06a12584278379e329d3e011c8629e15a6a",
    "markov": "f5ee482202db46761b300302d9113b0eb5e09e79046a5ac938056e0bda6959c2",
    "modular": "4c8bd59ea42498640e7505356598605bf3e76e1e6ecc44b62efc452c95d9846d",
    "recall": "673ad4fd0f4286e1592364aeb3799e5a51c8b7d2b5da37a45430d0eb27e0039c",
}


@pytest.mark.parametrize("name", SHA256)
def test_a_task_is_the_same_tokens_everywhere(name):
    # A change makes all results on it void.
    val = {"val_tokens": 5000} if name == "modular" else {"val_split": 5000}
    ids = all_of(task(name, tokens=100_000, **val)).astype("<u2")
    assert hashlib.sha256(ids.tobytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", ["copy", "markov", "recall"])
def test_a_shorter_task_is_the_beginning_of_a_longer_one(name):
    long = all_of(task(name, tokens=2**17 + 5, val_split=10))
    assert (all_of(task(name, tokens=3001, val_split=10)) == long[:3001]).all()
    assert (all_of(task(name, tokens=3001, val_split=10, seed=1)) != long[:3001]).any()


def test_copies_are_copies_of_random_symbols():
    corpus = task("copy", symbols=7, length=5, tokens=12 * 4000, val_split=12)
    rows = all_of(corpus).reshape(-1, 12)
    assert (rows[:, 0] == 8).all()
    assert (rows[:, 6] == 7).all()
    assert (rows[:, 1:6] == rows[:, 7:]).all()
    assert len({tuple(row) for row in rows.tolist()}) > 3500  # of 7^5 = 16,807
    counts = Counter(rows[:, 1:6].reshape(-1).tolist())
    assert sorted(counts) == list(range(7))
    # By hand: of 12 tokens five are one of seven each, the other seven are known.
    assert corpus.best_loss == pytest.approx(5 * math.log(7) / 12)
    assert entropy(counts) == pytest.approx(math.log(7), abs=1e-3)
    assert corpus.vocab_size == 9


def test_sums_are_right_and_held_out_pairs_are_new():
    corpus = task("modular", modulus=11, tokens=8000, val_tokens=4000, train_share=0.7)
    train, val = corpus.train.reshape(-1, 4), corpus.val.reshape(-1, 4)
    for a, b, sign, c in np.concatenate([train, val]).tolist():
        assert (sign, c) == (11, (a + b) % 11)
    pairs = [{(a, b) for a, b, *_ in part.tolist()} for part in (train, val)]
    assert [len(part) for part in pairs] == [int(0.7 * 121), 121 - int(0.7 * 121)]
    assert not pairs[0] & pairs[1]
    assert corpus.best_loss == pytest.approx(2 * math.log(11) / 4)


def test_a_share_that_leaves_no_pair_is_refused():
    with pytest.raises(DataError, match=r"train_share=0.1: of 9 pairs 0 would be trained on"):
        task("modular", modulus=3, train_share=0.1)


def test_questions_are_answered_by_the_pairs_before():
    corpus = task("recall", keys=6, values=3, pairs=4, tokens=16 * 4000, val_split=16)
    rows = all_of(corpus).reshape(-1, 8, 2)
    for row in rows.tolist():
        told, asked = row[:4], row[4:]
        assert sorted(told) == sorted(asked)
        assert len({key for key, _ in told}) == 4
        assert all(key < 6 <= value < 9 for key, value in told)
    # By hand: 6 * 5 * 4 * 3 choices of keys, 3^4 of values, 4! of questions, in 16 tokens.
    unknown = math.log(360) + 4 * math.log(3) + math.log(24)
    assert corpus.best_loss == pytest.approx(unknown / 16)
    drawn = Counter(tuple(key for key, _ in row[:4]) for row in rows.tolist())
    asked = Counter(tuple(row[:4].index(pair) for pair in row[4:]) for row in rows.tolist())
    assert entropy(drawn) == pytest.approx(math.log(360), abs=0.1)
    assert entropy(asked) == pytest.approx(math.log(24), abs=0.01)
    with pytest.raises(DataError, match="data.pairs=7: at most data.keys=6"):
        task("recall", keys=6, pairs=7)


@pytest.mark.parametrize("order", [1, 2])
def test_the_chain_has_the_entropy_that_it_says(order):
    corpus = task("markov", symbols=5, order=order, exponent=2, tokens=200_000, val_split=10)
    ids = all_of(corpus).tolist()
    # q_k ~ 1 / k^2 for k = 1 ... 5, whatever the context.
    shares = [1 / k**2 for k in range(1, 6)]
    known = -sum(s / sum(shares) * math.log(s / sum(shares)) for s in shares)
    assert corpus.best_loss == pytest.approx(known, rel=1e-6)
    windows = Counter(zip(*(ids[k:] for k in range(order + 1)), strict=False))
    contexts = Counter(zip(*(ids[k:] for k in range(order)), strict=False))
    assert entropy(windows) - entropy(contexts) == pytest.approx(known, abs=0.01)
    assert entropy(Counter(ids)) > known + 0.1  # the context tells something


def test_a_chain_that_is_too_large_to_be_learnt_is_refused():
    with pytest.raises(DataError, match=r"data.order=9: \d+ contexts"):
        task("markov", order=9)
