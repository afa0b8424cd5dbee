"""Text to ids and back, from vocabularies written here by hand."""

import json
import pickle

import numpy as np
import pytest

from gptopt.data import DataError, gpt2
from gptopt.data.preparation.train_tokenizer import train_tokenizer
from gptopt.data.texts import TextOptions
from gptopt.data.tokenizers import load_tokenizer

TEXTS = TextOptions(("text",), ("*.txt",), None)


def load(name, root, allow_pickle=False):
    return load_tokenizer(str(name), root, allow_pickle=allow_pickle)


def test_bytes_are_utf8(tmp_path):
    tokenizer = load("bytes", tmp_path)
    assert tokenizer.encode("aß").tolist() == [97, 0xC3, 0x9F]
    assert tokenizer.decode([97, 0xC3, 0x9F]) == "aß"
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (256, 0)


def test_characters_are_numbered_in_order(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"kind": "characters", "characters": "b𝄞a"}))
    tokenizer = load("c.json", tmp_path)
    assert tokenizer.encode("a𝄞bb").tolist() == [2, 1, 0, 0]
    assert tokenizer.decode([2, 1, 0]) == "a𝄞b"
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (4, 3)
    with pytest.raises(
        DataError, match="Character 1 of the text is 'z', which the vocabulary of 3"
    ):
        tokenizer.encode("azb")


def small_bpe(path, end="<|endoftext|>"):
    """256 bytes, then "th" = 256, "the" = 257, and the end of text = 258."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {letter: byte for byte, letter in gpt2.byte_characters().items()}
    vocabulary |= {"th": 256, "the": 257}
    built = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("t", "h"), ("th", "e")]))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    built.add_special_tokens([end])
    built.save(str(path))


def test_a_file_of_the_tokenizers_package_is_read(tmp_path):
    small_bpe(tmp_path / "bpe.json")
    tokenizer = load("bpe.json", tmp_path)
    assert tokenizer.encode("the th\n").tolist() == [257, 32, 256, 10]
    assert tokenizer.decode([257, 32, 256]) == "the th"
    assert (tokenizer.vocab_size, tokenizer.end_of_text, tokenizer.name) == (259, 258, "bpe.json")
    assert tokenizer.encode("the").dtype == np.uint16


def test_a_text_that_spells_a_special_token_does_not_make_one(tmp_path):
    small_bpe(tmp_path / "bpe.json")
    ids = load("bpe.json", tmp_path).encode("<|endoftext|>")
    assert ids.tolist() == list(b"<|endoftext|>")


def test_a_vocabulary_without_an_end_of_text_is_refused(tmp_path):
    small_bpe(tmp_path / "bpe.json", end="<stop>")
    with pytest.raises(DataError, match=r"bpe.json: no token that ends a text"):
        load("bpe.json", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "a.json: damaged, not JSON"),
        ("a.json", '{"kind": "characters"}', "no text under 'characters'"),
        ("a.json", "{}", "the tokenizers package cannot read it"),
        ("a.model", "", "'a.model': it takes bytes, gpt2, or a file that ends in .json"),
        ("b.json", None, "b.json cannot be read: No such file"),
        ("gpt3", None, "'gpt3': it takes bytes, gpt2"),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        load(name, tmp_path)


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_a_pickle_is_opened_only_when_it_is_allowed(tmp_path):
    (tmp_path / "boom.pkl").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(DataError, match="opening a pickle runs the code in it"):
        load("boom.pkl", tmp_path)
    # The meta.pkl of nanoGPT's character data sets.
    meta = {"vocab_size": 2, "itos": {0: "a", 1: "b"}, "stoi": {"a": 0, "b": 1}}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta))
    tokenizer = load("meta.pkl", tmp_path, allow_pickle=True)
    assert tokenizer.encode("abba").tolist() == [0, 1, 1, 0]
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"list.pkl: holds a list; known are nanoGPT's meta.pkl"):
        load("list.pkl", tmp_path, allow_pickle=True)


class OfTransformers:
    eos_token_id = 2

    def __len__(self):
        return 3

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return ["ab".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("ab$"[number] for number in ids)


def test_a_pickled_tokenizer_of_transformers_is_asked_for_plain_text(tmp_path):
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(OfTransformers()))
    tokenizer = load("t.pkl", tmp_path, allow_pickle=True)
    assert tokenizer.encode("ba").tolist() == [1, 0]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (3, 2)
    assert tokenizer.decode(np.array([2, 0])) == "$a"


# --- GPT-2 -------------------------------------------------------------------------------------


def test_missing_gpt2_files_come_with_the_command_that_brings_them(tmp_path):
    place = f"{tmp_path}/tokenizers/gpt2/vocab.json"
    with pytest.raises(DataError, match=f"curl -L --create-dirs -o {place} https://huggingface"):
        load("gpt2", tmp_path)


def test_files_that_are_not_gpt2s_are_refused(tmp_path):
    directory = tmp_path / "tokenizers" / "gpt2"
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps({"a": 0, "<|endoftext|>": 1}))
    (directory / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(
        DataError, match=r"2 tokens, 1 merges, <\|endoftext\|> is 1; GPT-2 has 50257"
    ):
        load("gpt2", tmp_path)
    for damaged in ("{", "[]"):
        (directory / "vocab.json").write_text(damaged)
        with pytest.raises(DataError, match="a damaged file"):
            load("gpt2", tmp_path)


def test_files_of_gpt2s_shape_are_read(tmp_path):
    pytest.importorskip("tiktoken")
    directory = tmp_path / "tokenizers" / "gpt2"
    directory.mkdir(parents=True)
    letters = gpt2.byte_characters()
    vocabulary = {letter: byte for byte, letter in letters.items()}
    pairs = [(a, b) for b in letters.values() for a in letters.values()][:50000]
    vocabulary |= {a + b: 256 + number for number, (a, b) in enumerate(pairs)}
    (directory / "vocab.json").write_text(json.dumps(vocabulary | {"<|endoftext|>": 50256}))
    merges = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in pairs)])
    (directory / "merges.txt").write_text(merges + "\n")
    tokenizer = load("gpt2", tmp_path)
    assert tokenizer.encode("ab c").tolist() == [
        256 + pairs.index(("a", "b")),
        256 + pairs.index(("\u0120", "c")),
    ]
    assert tokenizer.decode(tokenizer.encode("Zwölf <|endoftext|>")) == "Zwölf <|endoftext|>"
    assert tokenizer.encode("<|endoftext|>").max() < 50256


def test_bytes_have_the_characters_of_gpt2s_vocabulary():
    # A space is written as U+0120 and a line break as U+010A in GPT-2's files; letters stay.
    characters = gpt2.byte_characters()
    assert (characters[32], characters[10], characters[97]) == ("\u0120", "\u010a", "a")
    assert len(set(characters.values())) == 256


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_both_packages_merge_as_the_vocabulary_says(package):
    pytest.importorskip(package)
    # 256 bytes, then "th" = 256, "the" = 257, " a" = 258, by hand:
    vocabulary = {character: byte for byte, character in gpt2.byte_characters().items()}
    vocabulary |= {"th": 256, "the": 257, "\u0120a": 258}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "a")]
    encode = {
        "tiktoken": lambda: gpt2.with_tiktoken(vocabulary),
        "tokenizers": lambda: gpt2.with_tokenizers(vocabulary, merges),
    }[package]()
    assert encode("the a\n").tolist() == [257, 258, 10]
    assert encode("th<|").tolist() == [256, 60, 124]


# --- training ----------------------------------------------------------------------------------


def test_a_trained_bpe_joins_what_is_frequent(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text("the thing then the thin " * 50)
    size = train_tokenizer(
        [tmp_path], tmp_path / "v.json", kind="bpe", vocab_size=260, options=TEXTS
    )
    tokenizer = load("v.json", tmp_path)
    # "th" stands in every word, and with the space before it in all but the first.
    assert (size, tokenizer.vocab_size) == (260, 260)
    assert len(tokenizer.encode("th")) == 1
    for text in ("Überall\r\n\t\0", "the thing"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_trained_characters_are_those_of_the_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("bö\n")
    (tmp_path / "b.txt").write_text("abb")
    out = tmp_path / "v.json"
    assert train_tokenizer([tmp_path], out, kind="characters", vocab_size=0, options=TEXTS) == 5
    assert json.loads(out.read_text())["characters"] == "\nabö"
    assert load("v.json", tmp_path).encode("öa").tolist() == [3, 1]
    with pytest.raises(DataError, match="give the name of a new file that ends in .json"):
        train_tokenizer([tmp_path], out, kind="characters", vocab_size=0, options=TEXTS)


def test_a_bpe_of_fewer_than_all_bytes_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="vocab_size=256: 257 at least"):
        train_tokenizer([tmp_path], tmp_path / "v.json", kind="bpe", vocab_size=256, options=TEXTS)
