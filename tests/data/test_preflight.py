"""Bad data is refused by the commands of a sweep: exit code 65, and nothing created."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import POINT

from gptopt import data, layout
from gptopt.cli import main
from gptopt.sweep.plan import plan

MODEL = {key: value for key, value in POINT.items() if not key.startswith("data")}
STEPS = "training.training_params.max_steps"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Writes a sweep over the corpus ``words``, 4,000 tokens and 400 held out; runs commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    (tmp_path / "data").mkdir()
    for part, count in (("train", 4000), ("val", 1400)):
        np.zeros(count, dtype="<u2").tofile(tmp_path / "data" / f"words_{part}.bin")

    def sweep(command, *options, **content):
        corpus = {"data": "bin", "data.train": "words_train.bin", "data.val": "words_val.bin"}
        corpus |= {"data.name": "words", "data.dtype": "uint16", "data.vocab_size": 256}
        (tmp_path / "words.json").write_text(json.dumps(MODEL | corpus | content))
        answer = CliRunner().invoke(main, ["sweep", command, "words.json", *options])
        assert answer.exception is None or isinstance(answer.exception, SystemExit)
        return answer.exit_code, answer.output

    return sweep


def files(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*"))


COMMANDS = (["plan"], ["submit", "--via", "local"], ["submit", "--dry-run"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_bad_token_id_is_refused_before_anything_is_created(sweep, tmp_path, command):
    np.array([0] * 50 + [60000] + [0] * 4000, dtype="<u2").tofile("data/words_train.bin")
    sweep("plan")
    before = files(tmp_path)
    code, said = sweep(*command, lr=[0.001, 0.002])
    assert code == 65
    assert "words_train.bin, offset 100: token id 60000; model.config.vocab_size=256" in said
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data.train": "none_*.bin"}, "data=words: data.train=none_*.bin: no file matches"),
        ({"data.eval.more": {"format": "bin", "train": "words_train.bin", "val": "no.bin",
                             "val_split": None, "dtype": "uint16", "tokenizer": "gpt2",
                             "vocab_size": 256}}, "data.eval.more: data.val=no.bin: no file"),
        ({"bs": [2, 126]}, "4,000 training tokens make 124 windows"),
        ({"logging.logging_params.eval_tokens": 1400}, "eval_tokens=1400: the validation set has"),
        ({"data.loop": False, STEPS: [62, 63]}, "data.loop=false: the run reads 126 windows of"),
        ({"data.documents": "mask"}, "data.documents=mask: the training set does not say"),
    ],
)  # fmt: skip
def test_data_that_one_run_cannot_use_is_refused_for_all(sweep, tmp_path, content, said):
    eval_set = content.pop("data.eval.more", None)
    options = []
    if eval_set:
        inner = ",".join(f"{key}:{'null' if v is None else v}" for key, v in eval_set.items())
        options = [f"+data.eval.more={{{inner}}}"]
    code, told = sweep("submit", "--via", "local", *options, **content)
    assert (code, said in told) == (65, True), told
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "logs").exists()


def test_sound_data_is_opened_once_for_all_runs(sweep):
    with mock.patch("gptopt.data.preflight.open_corpus", wraps=data.open_corpus) as opened:
        code, _ = sweep("plan", lr=[0.001, 0.002, 0.004], seed=[0, 1, 2])
    assert (code, opened.call_count) == (0, 1)


def test_runs_that_have_ended_ask_nothing_of_their_data(sweep, tmp_path):
    sweep("plan", seed=[0, 1])
    for run in plan(tmp_path / "words.json", [], max_runs=9).runs:
        run.run.mkdir(parents=True)
        (run.run / layout.TERMINAL["completed"]).write_text('{"final": {"val_loss": 1.0}}')
    (tmp_path / "data" / "words_train.bin").unlink()
    code, said = sweep("submit", "--via", "local", seed=[0, 1])
    assert (code, said) == (0, "2 runs: 2 completed, nothing to do\n")
    assert sweep("plan", seed=[0, 1, 2])[0] == 65


def test_runs_that_are_tried_again_are_asked(sweep, tmp_path):
    sweep("plan", seed=[0])
    (run,) = plan(tmp_path / "words.json", [], max_runs=9).runs
    run.run.mkdir(parents=True)
    failed = {"error": "lost", "error_class": "data", "exit_code": 65}
    (run.run / layout.TERMINAL["failed"]).write_text(json.dumps(failed))
    (tmp_path / "data" / "words_val.bin").unlink()
    code, said = sweep("retry", "--all", seed=[0])
    assert (code, "data.val=words_val.bin: no file matches" in said) == (65, True), said


def test_looking_at_data_does_not_import_torch():
    check = "import sys, gptopt.data.preflight; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
