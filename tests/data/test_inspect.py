"""What is said about a corpus, and whether its shards are still those of the manifest."""

import json
import os

import numpy as np
import pytest

from gptopt.data import Corpus, DataError
from gptopt.data.inspect import describe, node_of_directory, node_of_preset
from gptopt.data.preparation.writing import write_shard
from gptopt.data.verify import verify


def corpus(train, **changes):
    train = np.array(train, dtype=np.uint16)
    return Corpus(train, train[:2], "f00", vocab_size=300, files={}, **changes)


def said(lines, word):
    return next(line.split(maxsplit=1)[1] for line in lines if line.split()[0] == word)


def test_counts_lengths_and_entropy_are_those_of_the_tokens():
    # Documents of 2, 4 and 1 tokens; the four ids stand there 3, 2, 1 and 1 times.
    lines = list(describe(corpus([9, 1, 9, 1, 2, 299, 9]), None, 9, 0))
    assert said(lines, "tokens") == "7 (uint16)"
    assert said(lines, "ids") == "4 different, the highest 299"
    assert said(lines, "documents") == "3; tokens in each: least 1, median 2, mean 2.3, most 4"
    assert said(lines, "entropy").startswith("1.2770 nats")  # ln 7 - (3 ln 3 + 2 ln 2) / 7


def test_samples_are_decoded_from_where_documents_start():
    source = corpus([0, 104, 105, 0, 97, 98])
    lines = list(describe(source, lambda ids: bytes(ids).decode(), 0, 2))
    assert [line.strip() for line in lines if "sample" in line][:2] == [
        "sample     at 0: '\\x00hi\\x00ab'",
        "sample     at 3: '\\x00ab'",
    ]
    assert "sample     at 0: [0, 104, 105, 0, 97, 98]" in "".join(describe(source, None, 0, 1))


def test_the_best_loss_of_a_task_is_told():
    assert "best loss    1.2500 nats per token" in list(
        describe(corpus([1, 2], best_loss=1.25), None, None, 0)
    )


def test_a_preset_is_changed_key_by_key():
    assert node_of_preset("text", {"path": "a"})["path"] == "a"
    with pytest.raises(DataError, match=r"data=txt: there are: bin, copy"):
        node_of_preset("txt", {})
    with pytest.raises(DataError, match=r"data.pth: data=text has: name, format, path"):
        node_of_preset("text", {"pth": "a"})


@pytest.fixture
def shards(tmp_path):
    entries = {}
    for name, ids in {"train_000000.bin": [1, 2, 3], "val_000000.bin": [4]}.items():
        write_shard(tmp_path / name, np.array(ids), vocab_size=300)
        import hashlib

        sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        entries[name] = {"tokens": len(ids), "max_id": max(ids), "sha256": sha256}
    manifest = {"tokenizer": "gpt2", "vocab_size": 300, "end_of_text": 0, "tokens": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"shards": entries}))
    return tmp_path


def test_whole_shards_are_verified(shards):
    assert verify(shards) == 2
    assert node_of_directory(shards)["vocab_size"] == 300


def test_every_damage_is_named(shards):
    content = bytearray((shards / "train_000000.bin").read_bytes())
    content[-1] ^= 1
    (shards / "train_000000.bin").write_bytes(content)
    os.truncate(shards / "val_000000.bin", 1025)
    (shards / "val_000001.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        verify(shards)
    lines = str(caught.value).splitlines()
    assert "train_000000.bin: sha256" in lines[0]
    assert "val_000000.bin: offset 8: the header says 1 tokens" in lines[1]
    assert lines[2] == f"{shards / 'val_000001.bin'}: not in the manifest."


def test_a_directory_without_manifest_or_unfinished_is_refused(shards):
    (shards / "unfinished").touch()
    with pytest.raises(DataError, match="has not finished here"):
        verify(shards)
    (shards / "unfinished").unlink()
    (shards / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="manifest.json: damaged"):
        verify(shards)
    (shards / "manifest.json").unlink()
    with pytest.raises(DataError, match="manifest.json: no such file"):
        verify(shards)
