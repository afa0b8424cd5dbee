"""What is held out: labelled sets, splits, test sets, and that training sees none of it."""

import numpy as np
import pytest
import torch
import yaml
from tiny import SETTINGS, marker, rows

import gptopt
from gptopt.config.problems import ConfigError
from gptopt.data import DataError, open_corpus
from gptopt.data.corpus import Corpus, Mixture, Part
from gptopt.distributed import World
from gptopt.evaluate import evaluate
from gptopt.layout import HYDRA_CONF
from gptopt.precision import Precision

from .loading import loader, reading, take

T = 8
WORDS = "{format: grammar, seed: %d, tokens: 9000, words: 50, classes: 5, val_split: %s%s}"


class LastToken(torch.nn.Module):
    """Gives every next token the same logits: its loss on target t is log(sum exp) - t / 10."""

    def forward(self, tokens_BT):
        return (torch.arange(10.0) / 10).expand(*tokens_BT.shape, 10)


NORMALISER = torch.arange(10.0).div(10).logsumexp(0).item()


def expected(targets):
    return NORMALISER - np.mean(targets) / 10


def evaluated(corpus, **changes):
    settings = {
        "context_length": 3,
        "batch_size": 2,
        "tokens": None,
        "with_tests": True,
        "reading": reading(),
        "precision": Precision(torch.device("cpu"), "float32"),
        "world": World({"strategy": "single", "timeout_minutes": 1}),
        "beat": lambda: None,
    }
    return evaluate(LastToken(), corpus, **settings | changes)


A, B, C = (np.array(tokens, dtype=np.uint8) for tokens in ([0, 1, 2, 3, 4], [9, 8, 8], [5, 6, 7]))


def test_every_set_has_its_loss_under_its_label():
    corpus = Corpus(A, A, "", 10, {}, evals={"b": B}, tests={"c": C, "": B})
    found = evaluated(corpus)
    assert list(found) == ["val_loss", "val/b/loss", "test/c/loss", "test_loss"]
    assert found["val_loss"] == pytest.approx(expected([1, 2, 3, 4]))
    assert found["val/b/loss"] == found["test_loss"] == pytest.approx(expected([8, 8]))
    assert found["test/c/loss"] == pytest.approx(expected([6, 7]))
    assert list(evaluated(corpus, with_tests=False)) == ["val_loss", "val/b/loss"]


def test_the_loss_of_a_mixture_is_the_mean_by_weight_of_its_parts():
    val = Mixture((Part("a", A, 3.0), Part("b", B, 1.0)), "weighted")
    found = evaluated(Corpus(val, val, "", 10, {}))
    assert list(found) == ["val_loss", "val/a/loss", "val/b/loss"]
    assert found["val/a/loss"] == pytest.approx(expected([1, 2, 3, 4]))
    mean = (3 * expected([1, 2, 3, 4]) + expected([8, 8])) / 4
    assert found["val_loss"] == pytest.approx(mean)


def test_eval_tokens_limits_validation_sets_and_no_test_set():
    found = evaluated(Corpus(A, A, "", 10, {}, tests={"c": A}), tokens=2)
    assert found["val_loss"] == pytest.approx(expected([1, 2]))
    assert found["test/c/loss"] == pytest.approx(expected([1, 2, 3, 4]))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_ignored_targets_do_not_count_whatever_the_batch(batch_size):
    ignoring = reading(ignored_ids=(2, 3))
    found = evaluated(Corpus(A, A, "", 10, {}), reading=ignoring, batch_size=batch_size)
    assert found["val_loss"] == pytest.approx(expected([1, 4]))


def test_a_set_of_which_nothing_counts_is_refused_by_name():
    with pytest.raises(DataError, match="val/b/loss: data.ignore leaves no target"):
        evaluated(Corpus(A, A, "", 10, {}, evals={"b": B}), reading=reading(ignored_ids=(8,)))


# --- opened from the config ---------------------------------------------------------------------


def node(**changes):
    """Counting bytes from a text file of 100."""
    preset = yaml.safe_load((HYDRA_CONF / "data" / "text.yaml").read_text())
    return preset | {"path": "a.txt", "val_split": None} | changes


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(100)))
    (tmp_path / "b.txt").write_bytes(bytes(range(60, 100)))
    return tmp_path


def test_splits_cut_the_tokens_in_three_without_overlap(root):
    corpus = open_corpus(node(splits=[0.8, 0.15, 0.05]), root)
    parts = corpus.train, corpus.val, corpus.tests[""]
    assert [len(part) for part in parts] == [80, 15, 5]
    assert b"".join(part[0 : len(part)].tobytes() for part in parts) == bytes(range(100))


def test_a_split_without_a_test_share_leaves_no_test_set(root):
    corpus = open_corpus(node(splits=[2 / 3, 1 / 3, 0]), root)
    assert (len(corpus.train), len(corpus.val), corpus.tests) == (67, 33, {})


def test_splits_of_a_mixture_cut_each_of_its_sources(root):
    sources = {
        "a": node(weight=2.0),
        "b": node(path="b.txt", weight=1.0),
    }
    mixed = {"name": "m", "format": "mixture", "mix": "weighted", "sources": sources}
    corpus = open_corpus(mixed | {"splits": [0.5, 0.25, 0.25]}, root)
    lengths = {
        (name, part.label): len(part.tokens)
        for name, mixture in (
            ("train", corpus.train), ("val", corpus.val), ("test", corpus.tests[""])
        )
        for part in mixture.parts
    }  # fmt: skip
    assert lengths == {
        ("train", "a"): 50, ("val", "a"): 25, ("test", "a"): 25,
        ("train", "b"): 20, ("val", "b"): 10, ("test", "b"): 10,
    }  # fmt: skip
    assert [part.weight for part in corpus.val.parts] == [2, 1]


def test_splits_beside_a_held_out_part_are_refused_and_not_preferred(root):
    with pytest.raises(DataError, match="exclude each other"):
        open_corpus(node(val_split=10, splits=[0.8, 0.1, 0.1]), root)


def test_max_tokens_keeps_the_beginning(root):
    corpus = open_corpus(node(val_split=10, max_tokens=25), root)
    assert corpus.train[0 : len(corpus.train)].tolist() == list(range(25))
    with pytest.raises(DataError, match="data.max_tokens=91: there are 90 training tokens"):
        open_corpus(node(val_split=10, max_tokens=91), root)


def test_further_sets_are_the_held_out_parts_of_their_corpora(root):
    plain = open_corpus(node(val_split=10), root)
    more = node(val_split=10, eval={"b": node(path="b.txt", val_split=4)})
    more["test"] = {"t": node(path="b.txt", val_split=2)}
    corpus = open_corpus(more, root)
    assert corpus.evals["b"].tolist() == [96, 97, 98, 99]
    assert corpus.tests["t"].tolist() == [98, 99]
    assert corpus.fingerprint != plain.fingerprint
    (root / "b.txt").write_bytes(bytes(range(20, 60)))
    assert open_corpus(more, root).fingerprint != corpus.fingerprint


@pytest.mark.parametrize("splits", [None, [0.7, 0.2, 0.1]])
def test_training_reads_no_window_that_is_held_out(root, splits):
    corpus = open_corpus(node(val_split=None if splits else 30, splits=splits), root)
    held_out = set(range(70, 100))
    batches = loader(corpus.train, batch_size=1)
    seen = set()
    for _ in range(3 * batches.windows):
        batch = batches.next_batch()
        seen |= {*batch.inputs.flatten().tolist(), *batch.targets.flatten().tolist()}
    assert seen
    assert not seen & held_out
    assert take(loader(corpus.train, batch_size=1), 1)[0] % T == 0


def test_a_run_writes_every_labelled_loss_and_test_losses_at_its_end(tmp_path):
    of_grammar = ("data=", "data.")
    settings = [text for text in SETTINGS if not text.startswith(of_grammar)]
    config = gptopt.compose(
        [
            *settings,
            f"paths.output_dir={tmp_path}",
            "data=mixture",
            "~data.sources.code",
            "~data.sources.words",
            f"+data.sources.a={WORDS % (1, 600, ', weight: 3')}",
            f"+data.sources.b={WORDS % (2, 600, ', weight: 1')}",
            f"+data.eval.other={WORDS % (3, 700, '')}",
            f"+data.test.last={WORDS % (4, 500, '')}",
        ]
    )
    run = gptopt.train(config).run
    found = [row for row in rows(run) if row["event"] == "eval"]
    labels = {"val_loss", "val/a/loss", "val/b/loss", "val/other/loss"}
    for row in found:
        assert labels <= row.keys()
        mean = (3 * row["val/a/loss"] + row["val/b/loss"]) / 4
        assert row["val_loss"] == pytest.approx(mean)
    assert ["test/last/loss" in row for row in found] == [False] * 3 + [True]
    assert marker(run)["final"]["val_loss"] == found[-1]["val_loss"]
    log = (run / "task.log").read_text()
    assert "a: 72 windows, 0.75 of the run" in log  # 24 steps of 4 windows


def test_a_set_may_be_added_by_the_name_of_its_file():
    found = gptopt.compose(["+data@data.eval.bard=shakespeare"]).data["eval"]["bard"]
    preset = yaml.safe_load((HYDRA_CONF / "data" / "shakespeare.yaml").read_text())
    assert found["path"] == preset["path"]


WRONG = [
    (["+data.eval.x={format: txt, path: a}"], "data.eval.x.format='txt': there is no"),
    (["+data.eval.x={format: stdlib}"], "data.eval.x.val_every is missing: it takes"),
    (["+data.test.x={format: stdlib, val_evry: 3, val_every: 3}"], "data.test.x.val_evry=3: there"),
    (["+data.eval.x={format: stdlib, val_every: often}"], "data.eval.x.val_every='often': it"),
    (["+data.eval={a b: {format: stdlib, val_every: 20}}"], "data.eval.a b: a label takes letters"),
    (["data=mixture", "~data.sources.code", "~data.sources.words"], "data.sources={}"),
    (["data=mixture", "data.sources.code.weight=0"], "data.sources.code.weight=0: it takes a"),
    (["data=mixture", "data.sources.code.weight=null"], "data.sources.code.weight is missing"),
    (["data=mixture", "data.mix=sequential", "data.sources.code.weight=null"], "no weights"),
    (["data=mixture", "data.sources.code.val_every=1"], "data.sources.code.val_every=1 would"),
    (["data=mixture", "data.max_tokens=9"], "data.max_tokens: of a mixture"),
    (["data=mixture", "data.mix=random"], "data.mix='random': it takes one of weighted"),
    (["data=mixture", "+data.eval.code={format: stdlib, val_every: 9}"], "data.eval.code: the"),
    (["data=mixture", "data.sources.code.weight=0.333333333"], "Give them fewer digits"),
    (["data=grammar", "data.val_split=null", "data.splits=[0.5,0.4,0.2]"], "add up to 1.1, not 1"),
    (["data=grammar", "data.splits=[0.5,0.4,0.1]"], "data.val_split=131072 and data.splits"),
    (["data.documents=masked"], "data.documents='masked': it takes one of plain"),
    (["data.ignore.token_range=[9,3]"], "data.ignore.token_range=[9, 3]: the lowest"),
    (["data.ignore.token_ids=[-1]"], "data.ignore.token_ids"),
    (["data.ignore.ids=[1]"], "data.ignore.ids=[1]: there is no such key"),
    (["data.prefetch=-1"], "data.prefetch=-1: it takes a whole number at least 0"),
    (["data.end_of_text=300"], "data.end_of_text=300: model.config.vocab_size=256"),
    (["data.loop=no"], "data.loop='no': it takes true or false"),
]


@pytest.mark.parametrize(("overrides", "said"), WRONG)
def test_a_wrong_source_or_setting_is_named_before_anything_starts(overrides, said):
    with pytest.raises(ConfigError) as caught:
        gptopt.compose(overrides)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_more_batches_ahead_are_no_other_run():
    assert gptopt.compose(["data.prefetch=0"]).run_id == gptopt.compose([]).run_id
    others = ["data.documents=mask", "data.shuffle=false"]
    others.append("+data.eval.x={format: stdlib, val_every: 9}")
    assert len({gptopt.compose([other]).run_id for other in ["data.loop=true", *others]}) == 4
