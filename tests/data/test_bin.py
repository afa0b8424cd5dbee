"""Shards on disk: read as their description says, refused where they are not so."""

import json
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from gptopt.data import DataError, check_ids, open_corpus
from gptopt.data.preparation.writing import write_shard
from gptopt.data.shards import Shards, open_shard, sampled_sha256

TOKENS = [7, 50256, 0, 65535, 12]
HEADERED = [(20240520, 1, "H"), (20240801, 7, "I"), (20250401, 1, "H")]
RAW = [("uint8", "B"), ("uint16", "H"), ("uint32", "I")]


def headered(path, tokens, magic=20240520, version=1, letter="H", count=None):
    """256 int32, then the tokens; all little-endian."""
    count = len(tokens) if count is None else count
    content = struct.pack("<256i", magic, version, count, *[0] * 253)
    path.write_bytes(content + struct.pack(f"<{len(tokens)}{letter}", *tokens))
    return path


def node(**keys):
    common = {"name": "mine", "format": "bin", "dtype": None, "tokenizer": "gpt2"}
    common |= {"val_split": None}
    patterns = {"train": "train_*.bin", "val": "val_*.bin"}
    return common | patterns | {"vocab_size": 50257} | keys


@pytest.fixture
def root(tmp_path):
    """Three training shards (6, 1 and 4 tokens) and one of validation."""
    headered(tmp_path / "train_000000.bin", range(6))
    headered(tmp_path / "train_000001.bin", [6])
    headered(tmp_path / "train_000002.bin", range(7, 11))
    headered(tmp_path / "val_000000.bin", [99, 98])
    return tmp_path


@pytest.mark.parametrize(("magic", "version", "letter"), HEADERED)
def test_each_header_is_recognised_and_read(tmp_path, magic, version, letter):
    path = headered(tmp_path / "a.bin", TOKENS, magic, version, letter)
    source = Shards([open_shard(path, None)])
    assert source[0 : len(source)].tolist() == TOKENS
    assert source.dtype.itemsize == struct.calcsize(letter)


@pytest.mark.parametrize(("dtype", "letter"), RAW)
def test_raw_tokens_are_read_by_their_type(tmp_path, dtype, letter):
    path = tmp_path / "train.bin"
    path.write_bytes(struct.pack(f"<4{letter}", 7, 200, 0, 12))
    assert Shards([open_shard(path, dtype)])[0:4].tolist() == [7, 200, 0, 12]


def test_a_written_shard_is_header_and_tokens(tmp_path):
    written, described = tmp_path / "a.bin", headered(tmp_path / "b.bin", TOKENS)
    write_shard(written, np.array(TOKENS), vocab_size=65536)
    assert written.read_bytes() == described.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_every_slice_over_shard_borders_equals_the_whole(root):
    train = open_corpus(node(), root).train
    for start in range(11):
        for stop in range(start, 12):
            assert train[start:stop].tolist() == list(range(start, stop))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, 1030), "header says 6 tokens.*1036 bytes.*1030 bytes"),
        (lambda path: os.truncate(path, 1037), "1037 bytes"),
        (lambda path: os.truncate(path, 500), "500 bytes; a header alone takes 1024"),
        (lambda path: os.truncate(path, 0), "0 bytes"),
        (lambda path: headered(path, [1], magic=20240522), "offset 0: magic number 20240522"),
        (lambda path: headered(path, [1], version=2), "offset 4: version 2; .* has 1"),
        (lambda path: headered(path, [1], count=-1), "offset 8: the header says -1 tokens"),
        (lambda path: headered(path, []), "offset 8: the header says 0 tokens"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_damaged_shard_of_three_is_refused_by_name(root, number, damage, said):
    path = root / f"train_{number:06d}.bin"
    headered(path, range(6))
    damage(path)
    with pytest.raises(DataError, match=said) as caught:
        open_corpus(node(), root)
    assert str(path) in str(caught.value)


def test_shards_of_different_types_are_refused(root):
    headered(root / "train_000001.bin", [1], 20240801, 7, "I")
    with pytest.raises(DataError, match=r"train_000001.bin holds uint32 tokens and .* uint16"):
        open_corpus(node(), root)


def test_raw_files_of_odd_size_or_with_a_header_are_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"123")
    with pytest.raises(DataError, match="3 bytes are no whole number .* of uint16"):
        open_shard(path, "uint16")
    with pytest.raises(DataError, match="Set data.dtype=null"):
        open_shard(headered(path, TOKENS), "uint16")


def test_random_headers_end_in_a_shard_or_a_data_error(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "a.bin"
    refused = 0
    for _ in range(400):
        header = [draw.choice([20240520, 20240801, 20250401, draw.getrandbits(31)])]
        header += [draw.choice([1, 7, draw.getrandbits(31)])]
        header += [draw.choice([0, 3, -(2**31), 2**31 - 1, draw.getrandbits(31)])]
        content = struct.pack("<3i", *header) + bytes(1012) + bytes(draw.choice([0, 5, 6, 12]))
        path.write_bytes(content[: draw.choice([0, 3, 4, 11, 1023, 2000, 2000, 2000])])
        try:
            assert open_shard(path, None).tokens == 3
        except DataError:
            refused += 1
    assert 200 < refused < 400


def test_a_shard_cut_short_under_a_reader_is_an_error_and_not_a_signal(root):
    train = open_corpus(node(), root).train
    os.truncate(root / "train_000002.bin", 1024 + 2)
    assert train[0:8].tolist() == list(range(8))
    with pytest.raises(DataError, match=r"train_000002.bin: ends at byte 1026; it had 4 tokens"):
        train[5:11]


def test_short_reads_are_completed(root, monkeypatch):
    # Network file systems may return less than was asked; here at most 3 bytes.
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: preadv(fd, [views[0].cast("B")[:3]], at)
    )
    train = open_corpus(node(), root).train
    assert train[0:11].tolist() == list(range(11))


def test_an_id_beyond_the_vocabulary_is_named_with_file_and_offset(root):
    headered(root / "train_000001.bin", [60000])
    train = open_corpus(node(), root).train
    check_ids(train, 60001, in_full=True)
    with pytest.raises(DataError, match=r"train_000001.bin, offset 1024: token id 60000.*50257"):
        check_ids(train, 50257, in_full=True)


def test_ids_are_checked_to_the_last_one_of_the_last_chunk(monkeypatch):
    monkeypatch.setattr("gptopt.data.checks.CHUNK", 10)
    tokens = np.zeros(35, dtype=np.uint16)
    check_ids(tokens, 1, in_full=True)
    tokens[34] = 1
    with pytest.raises(DataError, match="Token 34: token id 1"):
        check_ids(tokens, 1, in_full=True)


def test_split_follows_the_pattern_and_not_a_word_in_the_name(root):
    headered(root / "retrieval_train.bin", [5])
    corpus = open_corpus(node(), root)
    assert list(corpus.files) == [
        *(f"train_{number:06d}.bin" for number in range(3)),
        "val_000000.bin",
    ]
    assert corpus.val[0:2].tolist() == [99, 98]


def test_a_validation_shard_among_the_training_shards_is_refused(root):
    with pytest.raises(DataError, match="share no tokens"):
        open_corpus(node(train="*.bin"), root)
    (root / "train_000003.bin").write_bytes((root / "val_000000.bin").read_bytes())
    with pytest.raises(DataError, match=r"train_000003.bin is among .*val_000000.bin"):
        open_corpus(node(), root)


def test_the_fingerprint_follows_contents_and_names(root):
    fingerprints = [open_corpus(node(), root).fingerprint]
    assert open_corpus(node(), root).fingerprint == fingerprints[0]
    headered(root / "train_000001.bin", [8])
    fingerprints.append(open_corpus(node(), root).fingerprint)
    (root / "train_000000.bin").rename(root / "train_000003.bin")
    fingerprints.append(open_corpus(node(), root).fingerprint)
    fingerprints.append(open_corpus(node(train="train_00000[12].bin"), root).fingerprint)
    assert len(set(fingerprints)) == 4


def test_the_sampled_checksum_covers_both_ends_of_a_large_file(tmp_path):
    path = tmp_path / "a.bin"
    content = bytearray(200_000)
    checksums = set()
    for offset in (None, 0, 199_999):
        if offset is not None:
            content[offset] ^= 1
        path.write_bytes(content)
        checksums.add(sampled_sha256(path))
    assert len(checksums) == 3


def manifest(root, **changes):
    entries = {
        "train_000000.bin": {"tokens": 6},
        "train_000001.bin": {"tokens": 1},
        "train_000002.bin": {"tokens": 4},
        "val_000000.bin": {"tokens": 2},
    }
    content = {"tokenizer": "gpt2", "shards": entries} | changes
    (root / "manifest.json").write_text(json.dumps(content))


def test_shards_with_a_manifest_must_be_those_it_lists(root):
    manifest(root)
    open_corpus(node(), root)
    open_corpus(node(train="train_00000[01].bin"), root)  # part of them may be asked for
    (root / "train_000001.bin").unlink()
    with pytest.raises(DataError, match=r"manifest.json lists train_000001.bin, not found"):
        open_corpus(node(), root)
    headered(root / "train_000001.bin", [6, 6])
    with pytest.raises(DataError, match=r"train_000001.bin has 2 tokens, .* says 1"):
        open_corpus(node(), root)


def test_a_manifest_of_another_tokenizer_or_none_at_all_is_refused(root):
    manifest(root)
    with pytest.raises(DataError, match="made with tokenizer 'gpt2'; data.tokenizer='bytes'"):
        open_corpus(node(tokenizer="bytes"), root)
    Path(root / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="manifest.json: damaged"):
        open_corpus(node(), root)


def test_an_unfinished_preparation_is_refused(root):
    (root / "unfinished").touch()
    with pytest.raises(DataError, match="has not finished here"):
        open_corpus(node(), root)
