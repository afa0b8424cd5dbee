"""Documents to shards and back."""

import hashlib
import json

import numpy as np
import pytest

from gptopt.data import DataError, open_corpus
from gptopt.data.prepare import prepare
from gptopt.data.tokenizers import _byte_characters, _with_tiktoken, _with_tokenizers

DOCUMENTS = ["Föhn", "a", "long one " * 5, "d", "e" * 30, "", "last"]


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


def run(sources, out, **changes):
    options = {"tokenizer": "bytes", "val_share": 1 / 3, "shard_tokens": 16, "text_key": "text"}
    return prepare([sources], out, data_root=sources, **options | changes)


def node(out, **changes):
    data = {"name": "mine", "format": "bin", "dtype": None, "tokenizer": "bytes"}
    data |= {"vocab_size": 256, "train": f"{out}/train_*.bin", "val": f"{out}/val_*.bin"}
    return data | changes


def documents(source):
    tokens = source[0 : len(source)].astype(np.uint8).tobytes()
    assert tokens[0] == 0
    return [document.decode() for document in tokens[1:].split(b"\0")]


def test_documents_come_back_from_the_shards(sources, tmp_path):
    manifest = run(sources, tmp_path / "out")
    corpus = open_corpus(node("out"), tmp_path)
    kept = [text for text in DOCUMENTS if text]
    # Of documents 0 ... 5 a third is held out: floor((i + 1) / 3) grows at 2 and 5.
    assert documents(corpus.val) == [kept[2], kept[5]]
    assert documents(corpus.train) == [kept[0], kept[1], kept[3], kept[4]]
    assert manifest["documents"] == {"train": 4, "val": 2}
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


def test_an_interrupted_preparation_is_refused_and_starts_again(sources, tmp_path):
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    run(sources, undisturbed)
    lines = sources / "sub" / "b.jsonl"
    good = lines.read_text()
    lines.write_text(good + "{")
    with pytest.raises(DataError, match=r"b.jsonl, line 8: not JSON"):
        run(sources, out, shard_tokens=4)
    assert (out / "train_000003.bin").exists()
    with pytest.raises(DataError, match="has not finished here"):
        open_corpus(node("out"), tmp_path)
    lines.write_text(good)
    run(sources, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in undisturbed.iterdir()
    }


def test_a_used_directory_is_left_alone(sources, tmp_path):
    out = tmp_path / "out"
    run(sources, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match="not empty"):
        run(sources, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_share": 0.0}, "val_share=0.0: give a share"),
        ({"val_share": 0.1}, "No document for val: 6 documents, val_share=0.1"),
        ({"shard_tokens": 0}, "shard_tokens=0"),
        ({"shard_tokens": 2**31}, "counts from 1 to 2147483647"),
        ({"tokenizer": "gpt3"}, "tokenizer 'gpt3': .* knows bytes, gpt2"),
        ({"text_key": "body"}, "b.jsonl, line 1: no text under 'body'; it has: text, id"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_accepted(sources, tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        run(sources, tmp_path / "out", **changes)


def test_sources_that_cannot_be_read_are_named(sources, tmp_path):
    with pytest.raises(DataError, match="nothing: no such file or directory"):
        run(sources / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no .txt or .jsonl file"):
        run(tmp_path / "empty", tmp_path / "out")
    (sources / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"a.txt: offset 2: not UTF-8"):
        run(sources, tmp_path / "out")


def test_half_a_surrogate_pair_in_json_becomes_a_question_mark(sources, tmp_path):
    (sources / "sub" / "b.jsonl").write_text('{"text": "x\\ud800y"}\n{"text": "z"}\n')
    run(sources, tmp_path / "out")
    corpus = open_corpus(node("out"), tmp_path)
    assert documents(corpus.train) == ["Föhn", "x?y"]


def test_missing_gpt2_files_come_with_the_command_that_brings_them(sources, tmp_path):
    place = f"{sources}/tokenizers/gpt2/vocab.json"
    with pytest.raises(DataError, match=f"curl -L --create-dirs -o {place} https://huggingface"):
        run(sources, tmp_path / "out", tokenizer="gpt2")
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_gpt2s_are_refused(sources, tmp_path):
    directory = sources / "tokenizers" / "gpt2"
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps({"a": 0, "<|endoftext|>": 1}))
    (directory / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(
        DataError, match=r"2 tokens, 1 merges, <\|endoftext\|> is 1; GPT-2 has 50257"
    ):
        run(sources, tmp_path / "out", tokenizer="gpt2")
    (directory / "vocab.json").write_text("{")
    with pytest.raises(DataError, match="a damaged file"):
        run(sources, tmp_path / "out", tokenizer="gpt2")


def test_bytes_have_the_characters_of_gpt2s_vocabulary():
    # A space is written as U+0120 and a line break as U+010A in GPT-2's files; letters stay.
    characters = _byte_characters()
    assert (characters[32], characters[10], characters[97]) == ("\u0120", "\u010a", "a")
    assert len(set(characters.values())) == 256


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_both_packages_merge_as_the_vocabulary_says(package):
    pytest.importorskip(package)
    # 256 bytes, then "th" = 256, "the" = 257, " a" = 258, by hand:
    vocabulary = {character: byte for byte, character in _byte_characters().items()}
    vocabulary |= {"th": 256, "the": 257, "\u0120a": 258}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "a")]
    encode = {
        "tiktoken": lambda: _with_tiktoken(vocabulary),
        "tokenizers": lambda: _with_tokenizers(vocabulary, merges),
    }[package]()
    assert encode("the a\n").tolist() == [257, 258, 10]
    assert encode("th<|").tolist() == [256, 60, 124]
