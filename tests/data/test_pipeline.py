"""Text read by pieces while a run goes on: the tokens, their order, and where it goes on."""

import json
import os
import random
import tracemalloc

import numpy as np
import pytest
from tiny import SETTINGS

import gptopt
from gptopt.config.problems import ConfigError
from gptopt.data import DataError, open_corpus
from gptopt.data import texts as texts_module
from gptopt.data.corpus import Mixture, Part
from gptopt.data.order import windows_of

from .loading import T, loader, same, take

TOKENIZE = {"name": "tokenize", "tokenizer": "bytes", "allow_pickle": False}
SHUFFLE = {"name": "shuffle", "buffer": 20 * T}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Documents of .jsonl, .txt and .parquet files, in units of about a hundred bytes."""
    monkeypatch.setattr(texts_module, "SPAN_BYTES", 100)
    draw = random.Random(0)
    lines = [" ".join(draw.choice("abcdef") * draw.randint(1, 9) for _ in range(12))
             for _ in range(60)]  # fmt: skip
    (tmp_path / "docs").mkdir()
    rows = [json.dumps({"text": line}) for line in lines[:40]]
    (tmp_path / "docs" / "a.jsonl").write_text("\n".join(rows))
    for number, line in enumerate(lines[40:]):
        (tmp_path / "docs" / f"b{number:02}.txt").write_text(line)
    return tmp_path


def node(**changes):
    keys = {"name": "mine", "format": "pipeline", "path": "docs", "patterns": ["*.jsonl", "*.txt"]}
    keys |= {"fields": ["text"], "separator": None, "stages": [TOKENIZE, SHUFFLE], "val_split": 99}
    return keys | changes


def everything(corpus):
    return np.concatenate([part[0 : len(part)] for part in (corpus.train, corpus.val)])


def documents(root):
    """The texts of the corpus, read in the plainest way."""
    for path in sorted((root / "docs").iterdir()):
        content = path.read_text()
        if path.suffix == ".jsonl":
            yield from (json.loads(line)["text"] for line in content.splitlines())
        else:
            yield content


def test_its_tokens_are_those_of_the_documents_one_after_another(root):
    expected = b"".join(b"\0" + text.encode() for text in documents(root))
    corpus = open_corpus(node(), root)
    assert everything(corpus).tobytes() == expected
    assert len(corpus.val) == 99
    again = open_corpus(node(), root)  # with the counts that were kept
    assert everything(again).tobytes() == expected
    assert again.fingerprint == corpus.fingerprint


def test_chunks_are_pieces_of_one_document_each(root):
    size = 50
    expected = b"".join(
        text[first : first + size]
        for text in (b"\0" + document.encode() for document in documents(root))
        for first in range(0, len(text) - size + 1, size)
    )
    stages = [TOKENIZE, {"name": "chunk", "tokens": size}]
    assert everything(open_corpus(node(stages=stages), root)).tobytes() == expected


def test_a_chunk_goes_on_where_a_long_document_was_cut(root, monkeypatch):
    monkeypatch.setattr(texts_module, "PIECE", 30)
    text = "\n".join(str(number) for number in range(1000, 1060))
    (root / "docs" / "a.jsonl").write_text(json.dumps({"text": text}))
    corpus = open_corpus(
        node(path="docs/a.jsonl", stages=[TOKENIZE, {"name": "chunk", "tokens": 7}]), root
    )
    whole = b"\0" + text.encode()
    assert everything(corpus).tobytes() == whole[: len(whole) // 7 * 7]


def test_a_resume_at_every_batch_goes_on_to_the_token_over_epochs(root):
    source = open_corpus(node(), root).train
    uninterrupted = loader(source, batch_size=29)
    positions, batches = [], []
    for _ in range(3 * uninterrupted.windows // 29):
        positions.append(uninterrupted.state_dict())
        batches.append(uninterrupted.next_batch())
    assert uninterrupted.epoch == 2
    for number, position in enumerate(positions):
        resumed = loader(open_corpus(node(), root).train, batch_size=29)
        resumed.load_state_dict(position)
        for expected in batches[number : number + 2]:
            assert same(resumed.next_batch(), expected)


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 3), (3, 8), (1, 1)])
def test_ranks_and_batch_sizes_read_one_order(root, world_size, batch_size):
    def windows(batch):
        return [tuple(row) for row in batch.inputs.tolist()]

    source = open_corpus(node(), root).train
    alone = loader(source, batch_size=48)
    expected = [row for _ in range(4) for row in windows(alone.next_batch())]
    ranks = [
        loader(open_corpus(node(), root).train, batch_size=batch_size, rank=rank,
               world_size=world_size, prefetch=1)
        for rank in range(world_size)
    ]  # fmt: skip
    seen = []
    while len(seen) < len(expected):
        seen += [row for rank in ranks for row in windows(rank.next_batch())]
    for rank in ranks:
        rank.close()
    assert seen == expected


# --- the order of a buffer ----------------------------------------------------------------------


@pytest.mark.parametrize(("windows", "block"), [(1, 1), (7, 3), (62, 10), (60, 10), (5, 9), (9, 1)])
def test_a_buffer_permutes_every_epoch_exactly(windows, block):
    orders = windows_of(0, 5 * windows, windows, 0, block=block).reshape(5, windows)
    for order in orders:
        assert sorted(order.tolist()) == list(range(windows))
    if windows > 8:
        assert len({tuple(order) for order in orders.tolist()}) == 5
    for first in range(0, 3 * windows, 4):  # any piece alone is that piece of the whole
        piece = windows_of(first, 2 * windows, windows, 0, block=block)
        assert (piece == orders.ravel()[first : first + 2 * windows]).all()


def test_a_buffer_reads_one_stretch_after_another_each_in_an_order_of_its_own():
    blocks = windows_of(0, 1000, 1000, 3, block=50).reshape(20, 50)
    assert (blocks // 50 == blocks[:, :1] // 50).all()
    assert len({tuple(block) for block in (blocks % 50).tolist()}) == 20
    assert (blocks[:, 0] // 50).tolist() != list(range(20))


def test_a_buffer_as_large_as_the_source_is_the_order_of_any_source():
    for block in (62, 63, None):
        assert (windows_of(5, 200, 62, 9, block=block) == windows_of(5, 200, 62, 9)).all()


def test_each_place_of_a_buffered_order_is_equally_likely():
    # 5 windows in blocks of 2: window 4 comes last, the other four are anywhere before it.
    counts = np.zeros((5, 5), dtype=int)
    for seed in range(2000):
        counts[np.arange(5), windows_of(0, 5, 5, seed, block=2)] += 1
    assert (counts[4] == [0, 0, 0, 0, 2000]).all()
    # 500 expected, standard deviation sqrt(2000 * 1/4 * 3/4) = 19.4; 5 of them
    assert (abs(counts[:4, :4] - 500) < 97).all()


def test_without_a_shuffle_stage_or_with_shuffle_false_it_is_read_as_it_stands(root):
    plain = open_corpus(node(stages=[TOKENIZE]), root)
    text = everything(plain)
    for source, shuffle in ((plain.train, True), (open_corpus(node(), root).train, False)):
        batch = loader(source, shuffle=shuffle, batch_size=5).next_batch()
        assert batch.inputs.numpy().ravel().tolist() == text[: 5 * T].tolist()


def test_a_part_of_a_mixture_keeps_to_its_buffer(root):
    source = open_corpus(node(), root).train
    other = np.full(1000, 255, dtype=np.uint8)
    mixed = loader(Mixture((Part("a", source, 1.0), Part("b", other, 1.0)), "weighted"))
    alone = loader(source)
    # The label is a part of the seed: the same stretches are kept together, in another order.
    order = mixed._order(0, 80)
    blocks = order[1][order[0] == 0].reshape(2, 20) // 20
    assert (blocks == blocks[:, :1]).all()
    assert take(alone, 20) != take(loader(source, shuffle=False), 20)


# --- memory and the counts ----------------------------------------------------------------------


def test_memory_is_that_of_the_buffer_and_not_of_the_files(tmp_path):
    with open(tmp_path / "a.txt", "w") as file:
        for number in range(3_000_000):
            file.write(f"line {number}\n")  # 41 MB
    keys = node(path="a.txt", patterns=["*.txt"], stages=[TOKENIZE, SHUFFLE | {"buffer": 1 << 20}])
    open_corpus(keys, tmp_path)
    tracemalloc.start()
    source = open_corpus(keys, tmp_path).train
    take(loader(source, context_length=1000, batch_size=64), 3000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two units beside the buffer of 1 MB; reading another takes its text, a string and its ids.
    assert peak < (1 << 20) + 7 * (4 << 20)


def test_a_resume_tokenizes_the_buffer_and_its_ends_only(root, monkeypatch):
    keys = node(path="docs/a.jsonl")
    length = len(everything(open_corpus(keys, root)))
    read, real = set(), texts_module.read
    monkeypatch.setattr("gptopt.data.stages.read", lambda *a: read.add(a[0]) or real(*a))
    late = loader(open_corpus(keys, root).train, batch_size=20)
    assert not read  # the counts were kept
    late.load_state_dict({"samples": 20 * 10**6})
    late.next_batch()
    # A buffer of 160 tokens, perhaps the next one's beginning, and units of 100 at their ends.
    assert sum(span.size for span in read) <= 2 * 20 * T + 4 * 100 < length / 3


def test_a_text_that_changes_under_a_run_is_refused(root):
    source = open_corpus(node(), root).train
    (root / "docs" / "a.jsonl").write_text('{"text": "other"}')
    with pytest.raises(DataError, match=r"a.jsonl: has \d+ tokens where it had \d+ when"):
        source[0:400]
    os.remove(root / "docs" / "a.jsonl")
    with pytest.raises(DataError, match="a.jsonl: cannot be read: No such file"):
        source[0:400]


def test_a_changed_text_is_another_corpus(root):
    before = open_corpus(node(), root)
    (root / "docs" / "b03.txt").write_text("something else")
    after = open_corpus(node(), root)
    assert after.fingerprint != before.fingerprint
    assert b"something else" in everything(after).tobytes()


def test_a_data_root_that_cannot_be_written_is_read_all_the_same(root, monkeypatch):
    def full(*_):
        raise OSError

    monkeypatch.setattr("gptopt.data.formats.pipeline.write_json", full)
    assert len(everything(open_corpus(node(), root))) == len(everything(open_corpus(node(), root)))


def test_nothing_left_after_chunking_is_refused(root):
    with pytest.raises(DataError, match="no tokens in it. A chunk may be longer"):
        open_corpus(node(stages=[TOKENIZE, {"name": "chunk", "tokens": 9999}]), root)


# --- stages in a config -------------------------------------------------------------------------

STAGE = "{name: tokenize, tokenizer: bytes, allow_pickle: false}"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("[]", "data.stages: none. Stages come in the order tokenize, chunk, shuffle"),
        (f"[{{name: shuffle, buffer: 9}},{STAGE}]", "shuffle, tokenize. Stages come in the order"),
        (f"[{STAGE},{STAGE}]", "tokenize, tokenize. Stages come in the order"),
        (f"[{STAGE},{{name: shufle}}]", r"stages\[1\].name='shufle': .* mean 'shuffle'"),
        (f"[{STAGE},{{name: chunk, token: 9}}]", "token=9: there is no such key. .* 'tokens'"),
        (f"[{STAGE},{{name: chunk, tokens: 0}}]", r"stages\[1\].tokens=0: it takes a whole"),
        (f"[{STAGE},7]", "data.stages=.*7 should be a mapping"),
    ],
)
def test_a_wrong_stage_is_answered_before_anything_starts(stages, said):
    settings = [text for text in SETTINGS if not text.startswith(("data=", "data."))]
    with pytest.raises(ConfigError, match=said):
        gptopt.compose([*settings, "data=pipeline", "data.path=x", f"data.stages={stages}"])


def test_a_run_trains_on_a_pipeline(root):
    settings = [text for text in SETTINGS if not text.startswith(("data=", "data."))]
    stages = f"[{STAGE},{{name: shuffle, buffer: 500}}]"
    result = gptopt.train(
        gptopt.compose(
            [
                *settings,
                "data=pipeline",
                "data.name=mine",
                f"data.stages={stages}",
                "data.path=docs",
                "data.val_split=200",
                f"paths.data_root={root}",
                f"paths.output_dir={root}/out",
                "logging.logging_params.eval_tokens=null",
                "training.training_params.max_steps=3",
                "logging.logging_params.level=error",
            ]  # fmt: skip
        )
    )
    assert result.state == "completed"
