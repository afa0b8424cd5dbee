"""``gptopt data`` from the command line: text to a corpus, and the codes that it ends with."""

import json

import pytest
from click.testing import CliRunner

from gptopt.cli import main


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    (tmp_path / "notes").mkdir()
    for number in range(30):
        (tmp_path / "notes" / f"{number}.md").write_text(f"note {number}")

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(main, ["data", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    return invoke


PREPARE = ["prepare", "notes", "--pattern", "*.md", "--val-share", "0.3", "--workers", "1"]


def test_a_folder_of_notes_becomes_a_corpus(call, tmp_path):
    call("train-tokenizer", "notes", "--pattern", "*.md", "--kind", "characters", "--out", "c.json")
    said = call(*PREPARE, "--tokenizer", "c.json", "--out", "data/notes")
    assert "data=bin data.name=notes 'data.train=notes/train_*.bin'" in said
    # The letters of "note", a space, ten digits, and the end of the text.
    assert "data.tokenizer=c.json data.vocab_size=16" in said
    assert json.loads((tmp_path / "data/notes/manifest.json").read_text())["tokenizer"] == "c.json"
    assert "2 shards are as the manifest says" in call("verify", "data/notes")
    seen = call("inspect", "data/notes", "--preview", "1")
    assert "documents" in seen
    assert "note" in seen.split("sample")[1]
    assert "notes              bin       prepared here" in call("list")


def test_any_corpus_of_a_run_can_be_looked_at(call, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("hello world")
    seen = call("inspect", "data=text", "data.path=a.txt", "data.val_split=2", "--preview", "1")
    assert "tokens     9 (uint8)" in seen
    assert "'hello wor'" in seen


def test_the_list_tells_how_to_obtain_what_is_missing(call):
    seen = call("list")
    assert "wikitext           bin       missing" in seen
    assert "stdlib             stdlib    built in" in seen
    assert "text               text      yours" in seen
    assert "curl -L --create-dirs" in seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PREPARE, "--tokenizer", "gpt2", "--out", "x"], "To bring|curl -L"),
        ([*PREPARE, "--tokenizer", "bytes", "--out", "notes"], "not empty"),
        (["verify", "notes"], "notes/manifest.json: no such file"),
        (["inspect", "data=text", "data.path=none"], "no file or directory"),
        (["inspect", "data=nothing"], "there are: bin"),
    ],
)
def test_bad_data_ends_with_65_and_one_message(call, arguments, said):
    import re

    assert re.search(said, call(*arguments, code=65))
