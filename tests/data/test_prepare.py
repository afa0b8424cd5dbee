"""Documents to shards and back."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gptopt.data import DataError, open_corpus, texts
from gptopt.data.preparation.options import Options
from gptopt.data.preparation.prepare import prepare
from gptopt.data.shards import Shards, open_shard
from gptopt.data.texts import TextOptions, documents, find_files

DOCUMENTS = ["Föhn", "a", "long one " * 5, "d", "e" * 30, "", "last"]
OPTIONS = Options(
    tokenizer="bytes",
    allow_pickle=False,
    val_share=0.1,
    shard_tokens=16,
    shuffle_seed=None,
    deduplicate=False,
    texts=TextOptions(("text",), ("*.txt", "*.jsonl", "*.parquet"), None),
)


@pytest.fixture
def sources(tmp_path):
    """One document in a .txt file, six (one of them empty) in a .jsonl file."""
    directory = tmp_path / "texts"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.txt").write_text(DOCUMENTS[0])
    rows = [json.dumps({"text": text, "id": 1}) for text in DOCUMENTS[1:]]
    (directory / "sub" / "b.jsonl").write_text("\n".join(rows) + "\n\n")
    (directory / "notes.md").write_text("not a document")
    return directory


def run(sources, out, *, workers=1, fields=None, **changes):
    options = dataclasses.replace(OPTIONS, **changes)
    if fields:
        options = dataclasses.replace(options, texts=TextOptions(fields, ("*",), None))
    return prepare(
        [sources], out, options=options, workers=workers, data_root=sources, report=lambda _: None
    )


def node(out, **changes):
    data = {"name": "mine", "format": "bin", "dtype": None, "tokenizer": "bytes"}
    data |= {"vocab_size": 256, "train": f"{out}/train_*.bin", "val": f"{out}/val_*.bin"}
    return data | {"val_split": None} | changes


def split(source):
    """Texts of a source of bytes, in which byte 0 starts a document."""
    tokens = source[0 : len(source)].astype(np.uint8).tobytes()
    assert tokens[0] == 0
    return [document.decode() for document in tokens[1:].split(b"\0")]


def held_out(text, share):
    """Equation (1) of prepare.py."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_documents_come_back_from_the_shards(sources, tmp_path):
    manifest = run(sources, tmp_path / "out")
    corpus = open_corpus(node("out"), tmp_path)
    kept = [text for text in DOCUMENTS if text]
    assert split(corpus.val) == [text for text in kept if held_out(text, 0.1)]
    assert split(corpus.train) == [text for text in kept if not held_out(text, 0.1)]
    assert sum(manifest["documents"].values()) == 6
    assert manifest["tokens"] == {"train": len(corpus.train), "val": len(corpus.val)}


def test_the_manifest_lists_what_is_on_disk(sources, tmp_path):
    out = tmp_path / "out"
    manifest = run(sources, out)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert {path.name for path in out.iterdir()} == {"manifest.json", *manifest["shards"]}
    for name, entry in manifest["shards"].items():
        content = (out / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        tokens = np.frombuffer(content[1024:], dtype="<u2")
        assert (len(tokens), tokens.max()) == (entry["tokens"], entry["max_id"])
    train = [entry["tokens"] for name, entry in manifest["shards"].items() if "train" in name]
    assert train[:-1] == [16] * (len(train) - 1)
    assert 0 < train[-1] <= 16


def test_a_document_is_held_out_by_its_text_alone(sources, tmp_path):
    run(sources, tmp_path / "once")
    (sources / "copy.txt").write_text(DOCUMENTS[4])
    (sources / "another.txt").write_text("further")
    run(sources, tmp_path / "twice")
    parts = [open_corpus(node(out), tmp_path) for out in ("once", "twice")]
    for part in ("train", "val"):
        first, second = (set(split(getattr(corpus, part))) for corpus in parts)
        assert first <= second
    assert not set(split(parts[1].train)) & set(split(parts[1].val))


def test_equal_documents_are_kept_once_where_that_is_asked(sources, tmp_path):
    for number in range(3):
        (sources / f"c{number}.txt").write_text("a")
    plain, once = (run(sources, tmp_path / str(d), deduplicate=d) for d in (False, True))
    assert (sum(plain["documents"].values()), plain["duplicates"]) == (9, 0)
    assert (sum(once["documents"].values()), once["duplicates"]) == (6, 3)
    corpus = open_corpus(node("True"), tmp_path)
    found = split(corpus.train) + split(corpus.val)
    assert sorted(found) == sorted(text for text in DOCUMENTS if text)


def many(directory, count=60):
    directory.mkdir()
    lines = [
        json.dumps({"text": f"document {number} " * (number % 7 + 1)}) for number in range(count)
    ]
    for number in range(0, count, 10):
        (directory / f"{number:02d}.jsonl").write_text("\n".join(lines[number : number + 10]))
    return [json.loads(line)["text"] for line in lines]


def test_a_seed_gives_documents_an_order_of_their_own(tmp_path):
    written = many(tmp_path / "in")
    orders = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / "in", tmp_path / out, shuffle_seed=seed, shard_tokens=500)
        orders.append(split(open_corpus(node(out), tmp_path).train))
    assert orders[0] == orders[1]
    assert (
        sorted(orders[0]) == sorted(orders[2]) == sorted(t for t in written if not held_out(t, 0.1))
    )
    in_order = [text for text in written if text in set(orders[0])]
    assert len({tuple(order) for order in (orders[0], orders[2], in_order)}) == 3


@pytest.mark.parametrize("seed", [None, 3])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, monkeypatch, seed):
    many(tmp_path / "in")
    monkeypatch.setattr(texts, "SPAN_BYTES", 500)  # workers read the units as they are given
    results = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        run(tmp_path / "in", out, workers=workers, shuffle_seed=seed, shard_tokens=500)
        results.append(files(out))
    assert results[0] == results[1]


def test_a_long_text_is_cut_without_a_trace(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    long = "".join(f"line {number}\n" + "\n" * (number % 3) for number in range(150))
    (tmp_path / "in" / "a.txt").write_text(long)
    (tmp_path / "in" / "b.txt").write_text("short")
    (tmp_path / "in" / "c.txt").write_text("x" * 900)  # nowhere to cut
    run(tmp_path / "in", tmp_path / "whole", val_share=0.5, shuffle_seed=5, shard_tokens=500)
    monkeypatch.setattr(texts, "SPAN_BYTES", 300)
    monkeypatch.setattr(texts, "PIECE", 100)
    monkeypatch.setattr(texts, "BLOCK", 7)
    cut = run(tmp_path / "in", tmp_path / "cut", val_share=0.5, shuffle_seed=5, shard_tokens=500)
    assert sum(cut["documents"].values()) == 3
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    pieces = list(documents([tmp_path / "in" / "a.txt"], OPTIONS.texts))
    assert len(pieces) > 10
    assert "".join(piece.text for piece in pieces) == long
    assert [piece.starts for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    # Cut where GPT-2's pattern parts words anyway: one line break between printable characters.
    assert all(
        a.text[-2:].strip() and b.text[0].strip() for a, b in zip(pieces, pieces[1:], strict=False)
    )


@pytest.mark.parametrize("span", [5, 17, 64, 1 << 20])
def test_lines_and_separators_are_found_wherever_a_file_is_cut(tmp_path, monkeypatch, span):
    monkeypatch.setattr(texts, "SPAN_BYTES", span)
    monkeypatch.setattr(texts, "BLOCK", 3)
    written = ["first", "zwölf", "x" * 40, "", "last"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in written))
    (tmp_path / "a.txt").write_text("<|end|>".join(written))
    options = TextOptions(("text",), ("*",), "<|end|>")
    for name in ("a.jsonl", "a.txt"):
        found = [document.text for document in documents([tmp_path / name], options)]
        assert found == [text for text in written if text]


def test_tables_are_documents_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    table = pyarrow.table({"text": [text for text in DOCUMENTS if text] * 2})
    parquet.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=5)
    manifest = run(tmp_path / "in", tmp_path / "out")
    assert sum(manifest["documents"].values()) == 12


def test_a_large_vocabulary_takes_shards_of_32_bits(tmp_path):
    (tmp_path / "in").mkdir()
    letters = "".join(chr(0x4E00 + i) for i in range(20000)) + "".join(
        chr(0x10000 + i) for i in range(50000)
    )
    vocabulary = tmp_path / "in" / "v.json"
    vocabulary.write_text(json.dumps({"kind": "characters", "characters": letters}))
    for number in range(8):
        (tmp_path / "in" / f"{number}.txt").write_text(letters[number::9000])
    run(tmp_path / "in", tmp_path / "out", tokenizer="v.json", shard_tokens=1000, val_share=0.5)
    shard = open_shard(tmp_path / "out" / "train_000000.bin", None)
    assert shard.dtype == np.uint32
    assert Shards([shard])[0:1].tolist() == [70000]  # the end of text comes after the characters
    assert (tmp_path / "out" / "v.json").read_bytes() == vocabulary.read_bytes()


def test_what_is_prepared_already_is_left_as_it_is(sources, tmp_path):
    out = tmp_path / "out"
    first = run(sources, out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(sources, out) == first
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_a_used_directory_is_left_alone(sources, tmp_path):
    out = tmp_path / "out"
    run(sources, out)
    before = files(out)
    with pytest.raises(DataError, match="not empty, and not made by this command"):
        run(sources, out, val_share=0.2)
    assert files(out) == before


def test_an_interrupted_preparation_is_refused_and_goes_on(sources, tmp_path):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    run(sources, undisturbed)
    lines = sources / "sub" / "b.jsonl"
    good = lines.read_text()
    lines.write_text(good + "{")
    with pytest.raises(DataError, match=r"b.jsonl, offset \d+: not JSON"):
        run(sources, out)
    (out / "train_000000.bin").write_bytes((undisturbed / "train_000000.bin").read_bytes())
    with pytest.raises(DataError, match="has not finished here"):
        open_corpus(node("out"), tmp_path)
    lines.write_text(good)
    run(sources, out)
    assert files(out) == files(undisturbed)


def test_two_preparations_of_one_directory_are_refused(sources, tmp_path):
    from gptopt.data.preparation.workspace import Workspace

    with (
        Workspace(tmp_path / "out", {}),
        pytest.raises(DataError, match="another `gptopt data prepare` is at work here"),
    ):
        run(sources, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, workers):
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number}.txt").write_text(f"{number} " * 200_000)
    command = [sys.executable, "-m", "gptopt.cli", "data", "prepare", str(tmp_path / "in")]
    command += ["--tokenizer", "bytes", "--val-share", "0.3", "--workers", str(workers)]
    command += ["--shard-tokens", "1000000", "--shuffle-seed", "1", "--out"]
    start = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    whole = time.monotonic() - start
    for number in range(8):
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        time.sleep(whole * (number + 1) / 9)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def units_of(directory):
    return texts.units(sorted(directory.iterdir()), OPTIONS.texts)


def test_killed_in_the_middle_it_uses_what_is_there(tmp_path, monkeypatch):
    many(tmp_path / "in")
    monkeypatch.setattr(texts, "SPAN_BYTES", 500)
    run(tmp_path / "in", tmp_path / "whole")
    child = os.fork()
    if not child:
        done = []

        def report(progress):
            done.append(progress)
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        prepare(
            [tmp_path / "in"],
            tmp_path / "out",
            options=OPTIONS,
            workers=1,
            data_root=tmp_path,
            report=report,
        )
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    units = tmp_path / "out" / "units"
    times = {path.name: path.stat().st_mtime_ns for path in units.iterdir()}
    assert len(times) == 3
    seen = []
    prepare(
        [tmp_path / "in"],
        tmp_path / "out",
        options=OPTIONS,
        workers=1,
        data_root=tmp_path,
        report=seen.append,
    )
    assert seen[0].before > 0
    assert seen[-1].done == seen[-1].total
    assert len(seen) == len(units_of(tmp_path / "in")) - 3
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_share": 0.0}, "val_share=0.0: give a share"),
        ({"val_share": 0.01}, "No document for val: 6 documents, val_share=0.01"),
        ({"shard_tokens": 0}, "shard_tokens=0"),
        ({"shard_tokens": 2**31}, "counts from 1 to 2147483647"),
        ({"tokenizer": "gpt3"}, "tokenizer 'gpt3': it takes bytes, gpt2"),
        ({"fields": ("body",)}, "b.jsonl, offset 0: no text under 'body'; it has: text, id"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_accepted(sources, tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        run(sources, tmp_path / "out", **changes)


def test_sources_that_cannot_be_read_are_named(sources, tmp_path):
    with pytest.raises(DataError, match="nothing: no such file or directory"):
        run(sources / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file \*.txt or \*.jsonl or \*.parquet"):
        find_files([tmp_path / "empty"], OPTIONS.texts.patterns)
    (sources / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"a.txt: offset 2: not UTF-8"):
        run(sources, tmp_path / "out")


def test_half_a_surrogate_pair_in_json_becomes_a_question_mark(sources, tmp_path):
    (sources / "sub" / "b.jsonl").write_text('{"text": "x\\ud800y"}\n{"text": "z"}\n')
    found = [d.text for d in documents([sources / "sub" / "b.jsonl"], OPTIONS.texts)]
    assert found == ["x?y", "z"]
