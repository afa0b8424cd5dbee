"""The corpora by name: embedded, the user's own text, and what is said where data is missing."""

import hashlib
import inspect
import math
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

from gptopt.data import DataError, open_corpus
from gptopt.data.checks import check_enough
from gptopt.data.corpus import Corpus
from gptopt.data.formats import grammar, stdlib
from gptopt.layout import HYDRA_CONF

PRESETS = sorted(path.stem for path in (HYDRA_CONF / "data").glob("*.yaml"))


def preset(name, **changes):
    return yaml.safe_load((HYDRA_CONF / "data" / f"{name}.yaml").read_text()) | changes


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_lists_the_keys_of_its_format(name):
    data = preset(name)
    build = import_module(f"gptopt.data.formats.{data['format']}").build
    assert data.keys() - {"name", "format"} == inspect.signature(build).parameters.keys() - {
        "data_root"
    }
    assert data["name"] == name


# --- the standard library ----------------------------------------------------------------------


def library(directory, files):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


FILES = {"b.py": "bb", "a.py": "a", "pkg/c.py": "ccc", "pkg/d.py": "dddd", "z.py": "z"}


def test_every_k_th_file_is_held_out_whole(tmp_path):
    corpus = stdlib.read_sources(library(tmp_path, FILES), val_every=2)
    assert corpus.train.tobytes() == b"acccz"  # files 1, 3 and 5 of a, b, pkg/c, pkg/d, z
    assert corpus.val.tobytes() == b"bbdddd"
    assert corpus.vocab_size == 256


def test_tests_installed_packages_and_other_files_are_left_out(tmp_path):
    library(tmp_path, FILES)
    before = stdlib.read_sources(tmp_path, val_every=2)
    left_out = ["test/t.py", "site-packages/s.py", "pkg/tests/t.py", "idlelib/i.py", "lib2to3/l.py"]
    library(tmp_path, dict.fromkeys([*left_out, "readme.txt", "pkg/x.pyc"], "no"))
    assert stdlib.read_sources(tmp_path, val_every=2).fingerprint == before.fingerprint


def test_the_fingerprint_changes_with_a_content_a_name_and_the_split(tmp_path):
    library(tmp_path, FILES)
    fingerprints = [stdlib.read_sources(tmp_path, val_every=2).fingerprint]
    fingerprints.append(stdlib.read_sources(tmp_path, val_every=3).fingerprint)
    (tmp_path / "b.py").write_text("bB")
    fingerprints.append(stdlib.read_sources(tmp_path, val_every=2).fingerprint)
    (tmp_path / "b.py").rename(tmp_path / "ab.py")
    fingerprints.append(stdlib.read_sources(tmp_path, val_every=2).fingerprint)
    assert len(set(fingerprints)) == 4


@pytest.mark.parametrize("val_every", [1, 6])
def test_a_split_that_leaves_nothing_is_refused_with_the_numbers(tmp_path, val_every):
    with pytest.raises(DataError, match=f"data.val_every={val_every}: of 5 files .* Give 2 to 5"):
        stdlib.read_sources(library(tmp_path, FILES), val_every)


def test_this_python_has_megabytes_of_sources():
    corpus = open_corpus(preset("stdlib"), "unused")
    assert len(corpus.train) > 4_000_000
    assert 0.01 < len(corpus.val) / len(corpus.train) < 0.15
    source = Path(inspect.getsourcefile(inspect)).read_bytes()
    text = corpus.train.tobytes()
    assert (source in text) != (source in corpus.val.tobytes())


# --- the grammar -------------------------------------------------------------------------------


def test_the_grammar_is_the_same_bytes_everywhere():
    # Seen with numpy 1.26 and 2.4, Python 3.11 and 3.13. A change makes all results on it void.
    text = grammar.generate(seed=0, tokens=2**21, words=2000, classes=20)
    assert hashlib.sha256(text).hexdigest() == (
        "cd4b7d10d0f3ba2244c2602694a0429612de94fc95e4e5fe5805c5d7cce31f48"
    )


def test_a_shorter_text_is_the_beginning_of_a_longer_one():
    long = grammar.generate(seed=5, tokens=10_000, words=100, classes=4)
    assert grammar.generate(seed=5, tokens=3_000, words=100, classes=4) == long[:3_000]
    assert grammar.generate(seed=6, tokens=3_000, words=100, classes=4) != long[:3_000]


def entropy(counts):
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def test_the_grammar_can_be_learnt():
    text = grammar.generate(seed=0, tokens=400_000, words=2000, classes=20).decode()
    spoken = text.split()
    # Letters: two of context say at least a bit and a half about the next.
    single = entropy(Counter(text))
    pairs = Counter(zip(text, text[1:], strict=False))
    triples = Counter(zip(text, text[1:], text[2:], strict=False))
    assert entropy(triples) - entropy(pairs) < single - 1.5
    # Words: by Zipf's law word 0 is 1/1 and word 20 of the same class 1/21.
    counts = Counter(word.rstrip(".") for word in spoken)
    assert 1700 < len(counts) <= 2000
    full_stops = Counter(word for word in spoken if word.endswith("."))
    (_, first), (_, second) = full_stops.most_common(2)
    assert first / second == pytest.approx(21, rel=0.25)
    # Classes: among frequent words, the one before says half a bit about the one after.
    frequent = {word for word, _ in Counter(spoken).most_common(20)}
    bigrams = Counter(
        pair for pair in zip(spoken, spoken[1:], strict=False) if frequent.issuperset(pair)
    )
    before, after = Counter(), Counter()
    for (left, right), count in bigrams.items():
        before[left] += count
        after[right] += count
    assert entropy(before) + entropy(after) - entropy(bigrams) > 0.5


def test_more_classes_than_words_are_refused():
    with pytest.raises(DataError, match="data.classes=20: at most data.words=10"):
        open_corpus(preset("grammar", words=10), "unused")


# --- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("val_split", "held_out"), [(3, 3), (0.25, 2)])
def test_text_is_bytes_and_its_tail_is_held_out(tmp_path, val_split, held_out):
    (tmp_path / "poem.txt").write_text("Zwölf fie")  # 10 bytes
    corpus = open_corpus(preset("text", path="poem.txt", val_split=val_split), tmp_path)
    text = "Zwölf fie".encode()
    assert corpus.train.tobytes() == text[:-held_out]
    assert corpus.val.tobytes() == text[-held_out:]
    assert corpus.files == {
        str(tmp_path / "poem.txt"): f"sha256 {hashlib.sha256(text).hexdigest()}"
    }


def test_a_directory_is_its_txt_files_in_sorted_order(tmp_path):
    library(tmp_path, {"in/b.txt": "bb", "in/a.txt": "aa", "in/sub/c.txt": "cc", "in/d.md": "dd"})
    corpus = open_corpus(preset("text", path="in", val_split=2), tmp_path)
    assert corpus.train.tobytes() + corpus.val.tobytes() == b"\0aa\0bb\0cc"


def test_an_absolute_path_needs_no_data_root(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    data = preset("text", path=str(tmp_path / "a.txt"), val_split=1)
    assert len(open_corpus(data, "/nowhere").train) == 4


def test_the_text_fingerprint_changes_with_the_text_and_with_the_split(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    data = preset("text", path="a.txt", val_split=1)
    fingerprints = {open_corpus(data, tmp_path).fingerprint}
    fingerprints.add(open_corpus(data | {"val_split": 2}, tmp_path).fingerprint)
    (tmp_path / "a.txt").write_text("hellO")
    fingerprints.add(open_corpus(data, tmp_path).fingerprint)
    assert len(fingerprints) == 3


@pytest.mark.parametrize("val_split", [5, 6, 0.1])
def test_a_tail_that_is_all_or_nothing_is_refused_with_the_numbers(tmp_path, val_split):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=f"5 tokens; data.val_split={val_split} would hold out"):
        open_corpus(preset("text", path="a.txt", val_split=val_split), tmp_path)


# --- missing data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("shakespeare", "curl -L --create-dirs -o {root}/shakespeare/input.txt https://"),
        ("slim_pajama10B", "gptopt data prepare SOURCE... --out {root}/slim_pajama10B "),
        ("fineweb1B", "gptopt data prepare SOURCE... --out {root}/fineweb1B --tokenizer gpt2 "),
    ],
)
def test_missing_data_names_path_root_and_command(tmp_path, name, command):
    with pytest.raises(DataError) as caught:
        open_corpus(preset(name), tmp_path)
    message = str(caught.value)
    assert f"data={name}" in message
    assert f"{tmp_path}/{name}/" in message
    assert f"data root is {tmp_path} (paths.data_root" in message
    assert "DATA_ROOT" in message
    assert command.format(root=tmp_path) in message


def test_a_directory_without_text_and_an_unreadable_file_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*.txt file in the directory .*empty"):
        open_corpus(preset("text", path="empty"), tmp_path)
    with pytest.raises(DataError, match="no file or directory .*nothing"):
        open_corpus(preset("text", path="nothing"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/below cannot be read: Not a directory"):
        open_corpus(preset("text", path="file/below"), tmp_path)


# --- enough of it ------------------------------------------------------------------------------


def sized(train, val):
    zeros = np.zeros(train + val, dtype=np.uint8)
    return Corpus(zeros[:train], zeros[train:], "", vocab_size=256, files={})


@pytest.mark.parametrize(
    ("train", "val", "eval_tokens", "said"),
    [
        (32, 2, None, "32 training tokens make 3 windows of context_length=8.*batch_size=4"),
        (0, 2, None, "0 training tokens make 0 windows"),
        (33, 1, None, "validation set has 1 tokens"),
        (33, 9, 9, "eval_tokens=9: the validation set has 8 tokens to predict"),
    ],
)
def test_too_little_data_is_refused_with_the_numbers(train, val, eval_tokens, said):
    with pytest.raises(DataError, match=said):
        check_enough(
            sized(train, val), context_length=8, global_batch_size=4, eval_tokens=eval_tokens
        )


def test_just_enough_data_is_enough():
    check_enough(sized(33, 9), context_length=8, global_batch_size=4, eval_tokens=8)


def test_opening_and_preparing_data_do_not_import_torch():
    imports = "import sys, gptopt.data.preparation.prepare, gptopt.data.formats.bin"
    code = f"{imports}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
