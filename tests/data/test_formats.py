"""Every format, written from its description and read back."""

import json
import os
import random
import struct

import numpy as np
import pytest
import yaml

from gptopt.data import DataError, check_ids, open_corpus
from gptopt.data.formats import litdata, mds
from gptopt.data.npy import open_npy
from gptopt.data.shards import Shards, open_shard
from gptopt.layout import HYDRA_CONF

IDS = [7, 50256, 0, 300, 12, 9, 9, 1]
END = 0  # starts a document of bytes


def preset(name, **changes):
    return yaml.safe_load((HYDRA_CONF / "data" / f"{name}.yaml").read_text()) | changes


def everything(tokens):
    return tokens[0 : len(tokens)].tolist()


def npy_bytes(ids, descr="<u2", letter="H", shape=None, version=1):
    """NumPy Enhancement Proposal 1, by hand; the letter is struct's, with its byte order."""
    fields = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape or (len(ids),)}, }}"
    fields = fields.ljust(118 if version == 1 else 116) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(fields))
    order = ">" if descr.startswith(">") else "<"
    start = b"\x93NUMPY" + bytes([version, 0]) + length + fields.encode("latin-1")
    return start + struct.pack(f"{order}{len(ids)}{letter}", *ids)


# --- npy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descr", "letter"),
    [
        ("<u2", "H"),
        (">u2", "H"),
        ("<i4", "i"),
        (">i4", "i"),
        ("<u4", "I"),
        ("<i8", "q"),
        ("<u8", "Q"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_arrays_of_any_integer_are_read(tmp_path, descr, letter, version):
    (tmp_path / "a.npy").write_bytes(npy_bytes(IDS, descr, letter, version=version))
    assert everything(Shards([open_npy(tmp_path / "a.npy")])) == IDS


@pytest.mark.parametrize("shape", [(8,), (1, 8), (8, 1)])
def test_numpys_own_files_are_read_in_each_flat_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.array(IDS, dtype=np.int64).reshape(shape))
    assert everything(Shards([open_npy(tmp_path / "a.npy")])) == IDS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy_bytes(IDS, shape=(2, 4)), r"offset 10: shape \(2, 4\)"),
        (npy_bytes(IDS)[:-1], "header says 8 numbers of uint16"),
        (npy_bytes(IDS) + b"x", "header says 8 numbers of uint16"),
        (npy_bytes([], shape=(0,)), r"shape \(0,\)"),
        (npy_bytes(IDS, "<f4", "f"), "numbers of type '<f4'"),
        (npy_bytes(IDS, "|O", "H"), "numbers of type '|O'"),
        (b"PK\x03\x04" + bytes(50), "offset 0: b'PK"),
        (npy_bytes(IDS)[:9], "end inside the header"),
        (b"\x93NUMPY\x01\x00\x04\x00[[[[", "damaged header"),
    ],
)
def test_a_wrong_array_is_refused_by_file_and_offset(tmp_path, content, said):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        open_npy(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)


def test_a_negative_id_is_beyond_every_vocabulary(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, -1], dtype=np.int32))
    with pytest.raises(DataError, match="token id"):
        check_ids(Shards([open_npy(tmp_path / "a.npy")]), 2**31, in_full=True)


def test_an_array_cut_short_under_a_reader_is_an_error_and_not_a_signal(tmp_path):
    np.save(tmp_path / "a.npy", np.array(IDS, dtype=np.uint16))
    tokens = Shards([open_npy(tmp_path / "a.npy")])
    os.truncate(tmp_path / "a.npy", 130)
    with pytest.raises(DataError, match="ends at byte 130"):
        tokens[0:8]


@pytest.mark.parametrize(("val_split", "held_out"), [(3, 3), (0.25, 2)])
def test_the_tail_of_files_is_held_out(tmp_path, val_split, held_out):
    np.save(tmp_path / "a.npy", np.array(IDS[:5], dtype=np.uint16))
    np.save(tmp_path / "b.npy", np.array(IDS[5:], dtype=np.uint16))
    data = preset("npy", train="*.npy", val_split=val_split)
    corpus = open_corpus(data, tmp_path)
    assert everything(corpus.train) == IDS[:-held_out]
    assert everything(corpus.val) == IDS[-held_out:]
    other = open_corpus(data | {"val_split": 1}, tmp_path)
    assert other.fingerprint != corpus.fingerprint


def test_held_out_files_and_a_split_exclude_each_other(tmp_path):
    np.save(tmp_path / "a.npy", np.array(IDS, dtype=np.uint16))
    np.save(tmp_path / "b.npy", np.array(IDS[1:], dtype=np.uint16))
    data = preset("npy", train="a.npy", val="b.npy", val_split=2)
    with pytest.raises(DataError, match=r"data.val_split=2 and data.val=b.npy .* exclude"):
        open_corpus(data, tmp_path)
    assert everything(open_corpus(data | {"val_split": None}, tmp_path).val) == IDS[1:]
    with pytest.raises(DataError, match="8 tokens; data.val_split=8 would hold out 8"):
        open_corpus(data | {"val": None, "val_split": 8}, tmp_path)


# --- optimus -----------------------------------------------------------------------------------


@pytest.fixture
def optimus(tmp_path):
    """Documents of 3, 2 and 3 tokens in two shards."""
    files = []
    for number, documents in enumerate([[IDS[:3], IDS[3:5]], [IDS[5:]]]):
        name = f"web_{number:010d}"
        flat = [token for document in documents for token in document]
        np.save(tmp_path / f"{name}.npy", np.array(flat, dtype=np.uint16))
        np.save(tmp_path / f"{name}_lens.npy", np.array([len(d) for d in documents], np.uint32))
        entry = {"file": f"{name}.npy", "lens_file": f"{name}_lens.npy", "shard_idx": number}
        files.append(entry | {"num_tokens": len(flat), "num_docs": len(documents)})
    index = {"files": files, "total_tokens": len(IDS), "config": {}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return preset("optimus", train=".", val_split=2)


def test_optimus_shards_are_read_with_their_borders(optimus, tmp_path):
    corpus = open_corpus(optimus, tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS
    assert corpus.train.boundaries.tolist() == [0, 3, 5]


def test_optimus_shards_that_are_not_their_index_are_refused(optimus, tmp_path):
    lens = tmp_path / "web_0000000001_lens.npy"
    np.save(lens, np.array([2], dtype=np.uint32))
    with pytest.raises(DataError, match="has 3 tokens, .* says 3, and the lengths .* add up to 2"):
        open_corpus(optimus, tmp_path)
    lens.unlink()
    with pytest.raises(DataError, match=f"index.json lists {lens.name}, not found"):
        open_corpus(optimus, tmp_path)
    (tmp_path / "index.json").write_text('{"files": [{"file": 3}]}')
    with pytest.raises(DataError, match="'file' is 3, and should be str"):
        open_corpus(optimus, tmp_path)


# --- litdata -----------------------------------------------------------------------------------


def chunk(items, letter):
    """uint32 N, uint32[N + 1] offsets from the start of the file, the items."""
    parts = [struct.pack(f"<{len(item)}{letter}", *item) for item in items]
    offsets = [4 * (len(items) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<I{len(offsets)}I", len(items), *offsets) + b"".join(parts)


def lit_index(tmp_path, data_format, **config):
    chunks = [{"filename": f"chunk-0-{i}.bin", "chunk_size": 1} for i in range(2)]
    config = {"compression": None, "data_format": [data_format], **config}
    (tmp_path / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))


@pytest.mark.parametrize(
    ("data_format", "letter"),
    [("no_header_tensor:16", "i"), ("no_header_tensor:20", "H"), ("no_header_numpy:5", "H")],
)
def test_litdata_chunks_are_read(tmp_path, data_format, letter):
    (tmp_path / "chunk-0-0.bin").write_bytes(chunk([IDS[:2], IDS[2:5]], letter))
    (tmp_path / "chunk-0-1.bin").write_bytes(chunk([IDS[5:]], letter))
    lit_index(tmp_path, data_format)
    corpus = open_corpus(preset("litdata", train=".", val_split=1), tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS


def test_litdata_of_other_kinds_is_refused(tmp_path):
    for number in range(2):
        (tmp_path / f"chunk-0-{number}.bin").write_bytes(chunk([IDS], "H"))
    data = preset("litdata", train=".", val_split=1)
    for data_format in ("jpeg", "no_header_tensor:0", "no_header_numpy:99", "no_header_numpy:"):
        lit_index(tmp_path, data_format)
        with pytest.raises(DataError, match="tokens are one item of integers"):
            open_corpus(data, tmp_path)
    lit_index(tmp_path, "no_header_numpy:5", compression="zstd")
    with pytest.raises(DataError, match="compression 'zstd'"):
        open_corpus(data, tmp_path)


# --- mds ---------------------------------------------------------------------------------------


def mds_shard(samples, columns=("bytes",)):
    """uint32 N, uint32[N + 1] absolute offsets, JSON, the samples."""
    config = json.dumps({"column_encodings": columns}).encode()
    offsets = [4 * (len(samples) + 2) + len(config)]
    for sample in samples:
        offsets.append(offsets[-1] + len(sample))
    head = struct.pack(f"<I{len(offsets)}I", len(samples), *offsets)
    return head + config + b"".join(samples)


def mds_index(tmp_path, shards, names, encodings, sizes, **changes):
    listed = []
    for number, samples in enumerate(shards):
        name = f"shard.{number:05d}.mds"
        (tmp_path / name).write_bytes(mds_shard(samples))
        entry = {"raw_data": {"basename": name, "bytes": 1}, "samples": len(samples)}
        entry |= {"column_names": names, "column_encodings": encodings, "column_sizes": sizes}
        listed.append(entry | {"compression": None} | changes)
    (tmp_path / "index.json").write_text(json.dumps({"shards": listed, "version": 2}))


def sized(*columns):
    """A sample of columns that all vary in size."""
    return struct.pack(f"<{len(columns)}I", *map(len, columns)) + b"".join(columns)


def test_mds_columns_of_bytes_are_read_beside_others(tmp_path):
    samples = [sized(b"name", np.array(ids, dtype="<i8").tobytes()) for ids in (IDS[:3], IDS[3:])]
    mds_index(tmp_path, [samples[:1], samples[1:]], ["id", "tokens"], ["str", "bytes"], [None] * 2)
    corpus = open_corpus(preset("mds", train=".", val_split=1, dtype="int64"), tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS
    assert corpus.train.boundaries.tolist() == [0, 3]
    with pytest.raises(DataError, match="column 'tokens' holds bytes. Set data.dtype"):
        open_corpus(preset("mds", train=".", val_split=1), tmp_path)


@pytest.mark.parametrize("given", ["ndarray:uint16", "ndarray:uint16:4"])
def test_mds_arrays_are_read_with_and_without_their_shape(tmp_path, given):
    # A shape is a byte, dimensions * 4 + type of its numbers (0: uint8), and the numbers.
    shape = b"" if given.count(":") == 2 else bytes([1 << 2, 4])
    arrays = [shape + np.array(ids, dtype="<u2").tobytes() for ids in (IDS[:4], IDS[4:])]
    samples = [sized(array) for array in arrays] if shape else arrays
    mds_index(tmp_path, [samples], ["tokens"], [given], [None if shape else 8])
    corpus = open_corpus(preset("mds", train=".", val_split=1), tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS


def test_mds_of_other_kinds_is_refused(tmp_path):
    mds_index(tmp_path, [[b"ab"]], ["tokens"], ["str"], [None])
    with pytest.raises(DataError, match="encoded as 'str'"):
        open_corpus(preset("mds", train=".", val_split=1), tmp_path)
    with pytest.raises(DataError, match="no column 'ids'; it has: tokens"):
        open_corpus(preset("mds", train=".", val_split=1, column="ids"), tmp_path)
    mds_index(tmp_path, [[b"ab"]], ["tokens"], ["ndarray:uint16:1"], [2], compression="zstd")
    with pytest.raises(DataError, match="compression 'zstd'"):
        open_corpus(preset("mds", train=".", val_split=1), tmp_path)


def test_an_mds_shard_cut_short_under_a_reader_is_an_error(tmp_path):
    samples = [np.array(IDS, dtype="<u2").tobytes()]
    mds_index(tmp_path, [samples], ["tokens"], ["ndarray:uint16:8"], [16])
    corpus = open_corpus(preset("mds", train=".", val_split=1), tmp_path)
    os.truncate(tmp_path / "shard.00000.mds", 50)
    with pytest.raises(DataError, match="ends at byte 50"):
        corpus.train[0:7]


# --- documents ---------------------------------------------------------------------------------

ROWS = [
    ({"text": "Föhn"}, ["text"], "Föhn"),
    ({"prompt": "2+2", "response": "4"}, ["prompt", "response"], "2+2\n4"),
    (
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        ["messages"],
        "user: hi\nassistant: ho",
    ),
]


@pytest.mark.parametrize(("row", "fields", "text"), ROWS)
def test_lines_of_json_become_documents(tmp_path, row, fields, text):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps(row))
    data = preset("jsonl", path="a.jsonl", fields=fields, val_split=1)
    corpus = open_corpus(data, tmp_path)
    written = corpus.train.tobytes() + corpus.val.tobytes()
    assert written == 2 * (bytes([END]) + text.encode())


@pytest.mark.parametrize(("row", "fields", "text"), ROWS)
@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_rows_of_tables_become_documents(tmp_path, row, fields, text, kind):
    path = write_table(tmp_path, kind, [row, row])
    data = preset("parquet", path=path.name, fields=fields, val_split=1)
    corpus = open_corpus(data, tmp_path)
    written = corpus.train.tobytes() + corpus.val.tobytes()
    assert written == 2 * (bytes([END]) + text.encode())


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_columns_of_ids_are_taken_as_they_are(tmp_path, kind):
    path = write_table(tmp_path, kind, [{"input_ids": IDS[:3]}, {"input_ids": IDS[3:]}])
    data = preset("parquet", path=path.name, fields=["input_ids"], val_split=1)
    with pytest.raises(DataError, match=r"Set data.vocab_size"):
        open_corpus(data, tmp_path)
    corpus = open_corpus(data | {"vocab_size": 50257}, tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS
    assert (corpus.train.dtype, corpus.vocab_size) == (np.uint16, 50257)
    with pytest.raises(DataError, match="no column 'text'; it has: input_ids"):
        open_corpus(data | {"fields": ["text"]}, tmp_path)


def test_a_directory_of_datasets_is_read_in_the_order_of_its_state(tmp_path):
    for number, ids in enumerate([IDS[:3], IDS[3:]]):
        path = write_table(tmp_path, "stream", [{"input_ids": ids}])
        path.rename(tmp_path / f"data-{1 - number:05d}-of-00002.arrow")
    names = [f"data-{number:05d}-of-00002.arrow" for number in (1, 0)]
    state = {"_data_files": [{"filename": name} for name in names]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    data = preset("parquet", path=".", fields=["input_ids"], vocab_size=50257, val_split=1)
    corpus = open_corpus(data, tmp_path)
    assert everything(corpus.train) + everything(corpus.val) == IDS
    (tmp_path / names[1]).unlink()
    with pytest.raises(DataError, match=rf"state.json lists {names[1]}, not found"):
        open_corpus(data, tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "stream"])
def test_a_damaged_table_is_refused_by_name(tmp_path, kind):
    path = write_table(tmp_path, kind, [{"text": "a" * 1000}])
    os.truncate(path, 200)
    with pytest.raises(DataError, match=f"{path.name}: cannot be read"):
        open_corpus(preset("parquet", path=path.name), tmp_path)


def write_table(tmp_path, kind, rows):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
        return tmp_path / "a.parquet"
    path = tmp_path / "a.arrow"
    writers = {"stream": pyarrow.ipc.new_stream, "file": pyarrow.ipc.new_file}
    with open(path, "wb") as file, writers[kind](file, table.schema) as writer:
        writer.write_table(table)
    return path


# --- damage ------------------------------------------------------------------------------------

FORMATS = {
    "bin": (
        struct.pack("<256i", 20240520, 1, 8, *[0] * 253) + struct.pack("<8H", *IDS),
        12,
        lambda path: open_shard(path, None),
    ),
    "npy": (npy_bytes(IDS), 128, open_npy),
    "litdata": (
        chunk([IDS[:3], IDS[3:]], "H"),
        16,
        lambda path: litdata._open(path, np.dtype("<u2")),
    ),
    "mds": (
        mds_shard([sized(struct.pack("<8H", *IDS))] * 2),
        60,
        lambda path: mds._pieces(path, 2, mds._Column(0, [None], np.dtype("<u2"), False)),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_damaged_headers_are_refused_or_harmless(tmp_path, name):
    good, header, opener = FORMATS[name]
    (tmp_path / "good").write_bytes(good)
    opener(tmp_path / "good")
    draw = random.Random(0)
    messages, named = [], []
    for number in range(2000):
        path = tmp_path / f"{number}"  # a new file each: writing one anew waits for the disk
        damaged = bytearray(good)
        for _ in range(draw.choice([0, 1, 1, 2, 8])):
            damaged[draw.randrange(header)] = draw.choice([0, 1, 127, 255, draw.randrange(256)])
        path.write_bytes(damaged[: draw.choice([len(good)] * 3 + [draw.randrange(len(good))])])
        try:
            opener(path)
        except DataError as error:
            messages.append(str(error))
            named.append(str(path) in messages[-1])
    assert all(named)
    assert 500 < len(messages) < 2000
