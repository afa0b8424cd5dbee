"""Whatever stands in a sweep file, planning it gives a plan or a short report; nothing else."""

import copy
import json
import random

import pytest

from gptopt.config.problems import ConfigError
from gptopt.layout import PROJECT
from gptopt.sweep.plan import plan

FILES = [json.loads(path.read_text()) for path in sorted((PROJECT / "params").glob("*.json"))]
WORDS = ["$zip", "$each", "$sample", "$center", "$skip", "$alias", "$stages", "$top", "$nothing"]
KEYS = [
    *("lr", "wd", "seed", "bs", "steps", "betas", "optimizer", "model", "data", "name", "schedule"),
    *("model.config.n_layer", "model.config", "+args.x", "++args.x", "training", "paths.run_name"),
    *("optimizer.optimizer_params.name", "optimizer.optimizer_params.betas.0", "checkpoint.load"),
    *("cluster.env.A", "hydra.run.dir", "+training.training_params.more", "é", "args.x.y", "lr.x"),
]
VALUES = [
    *(None, True, 0, -1, 1, 0.5, 1e-30, 10**30, 2**63, 1e308, "", "1e-3", "muon", "adamw", "gpt2"),
    *(
        "tiny",
        "é漢🙂",
        "it's",
        "a\nb",
        "\u0000",
        "${optimizer.optimizer_params.lr}",
        "${lr}",
        "???",
    ),
    *("${no.such}", "${oc.env:HOME}", "${..name}", "x" * 5000, "../..", "/", "a=b", "$(touch x)"),
    *([], [0.1, 0.2], [[0.9, 0.95]], [[0.9]], [["a", None]], {}, {"log": [1e-3, 1e-2, 3]}),
    *({"lin": [1, 3, 3]}, {"uniform": [0, 1]}, {"times": [0.5, 2]}, {"times": "x"}, {"n": 2}),
    *([{"lr": 0.1}], [{"seed": [0, 1]}, {"$top": 1, "lr": {"times": [0.5, 1]}}], {"lr": [1, 2]}),
]


def containers(value):
    """Every object and list in a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def mutated(dice):
    """The text of a sweep file with one or two changes, some of which are no JSON."""
    content = copy.deepcopy(dice.choice(FILES))
    for _ in range(dice.randint(1, 2)):
        inside = dice.choice(list(containers(content)))
        value = copy.deepcopy(dice.choice(VALUES))
        if isinstance(inside, list):
            inside.insert(dice.randint(0, len(inside)), value)
        elif inside and dice.random() < 0.3:
            key = dice.choice(list(inside))  # under another name
            inside[dice.choice(WORDS + KEYS)] = inside.pop(key)
        else:
            inside[dice.choice([*WORDS, *KEYS, *inside])] = value
    text = json.dumps(content, ensure_ascii=dice.random() < 0.5)
    kind = dice.random()
    if kind < 0.03:
        return text[: dice.randrange(len(text))]
    if kind < 0.06:
        return text.replace("{", '{"lr": 1, "lr": 2, ', 1)
    if kind < 0.09:
        return text.replace("0.001", dice.choice(["NaN", "1e999", "01", "-Infinity"]))
    return text


def outcome(file):
    """The runs in a file, or none and the report."""
    try:
        return plan(file, [], max_runs=300).runs, ""
    except ConfigError as error:
        return [], str(error)


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_mutated_file_is_planned_or_refused_in_a_short_report(count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sweep.json"
    dice = random.Random(count)
    planned = refused = 0
    for _ in range(count):
        text = mutated(dice)
        file.write_text(text)
        runs, report = outcome(file)
        if runs:
            planned += 1
            assert len({run.run for run in runs}) == len({run.run_id for run in runs}), text
            assert all(run.run.is_relative_to(tmp_path / "outputs") for run in runs), text
        else:
            refused += 1
            assert 2 <= len(report.splitlines()) < 100, text
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]
    assert planned > count / 40, (planned, refused)
    assert refused > count / 4, (planned, refused)
