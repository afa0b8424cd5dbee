"""Sweep files: what they mean, and what is said about those that mean nothing."""

import json
from pathlib import Path

import pytest

from gptopt.config.problems import ConfigError
from gptopt.sweep import params
from gptopt.sweep.keys import PATH

LR = "optimizer.optimizer_params.lr"
WD = "optimizer.optimizer_params.weight_decay"
BETAS = "optimizer.optimizer_params.betas"
SEED = "training.training_params.seed"


@pytest.fixture
def points(tmp_path):
    def read(text):
        file = tmp_path / "sweep.json"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return list(params.read(file).points())

    return read


def test_a_list_is_swept_and_anything_else_is_fixed(points):
    assert points('{"optimizer": "muon", "lr": [0.1, 0.2], "seed": [0, 1]}') == [
        {"optimizer": "muon", LR: 0.1, SEED: 0},
        {"optimizer": "muon", LR: 0.1, SEED: 1},
        {"optimizer": "muon", LR: 0.2, SEED: 0},
        {"optimizer": "muon", LR: 0.2, SEED: 1},
    ]


def test_a_choice_that_is_a_list_is_nested(points):
    assert points('{"betas": [[0.9, 0.95], [0.8, 0.9]]}') == [
        {BETAS: [0.9, 0.95]},
        {BETAS: [0.8, 0.9]},
    ]


def test_a_text_is_one_value_and_not_its_letters(points):
    assert points('{"dtype": "float32"}') == [{"training.training_params.dtype": "float32"}]


def test_each_is_a_union_and_its_keys_win_over_those_around_it(points):
    assert points('{"wd": 0, "lr": [7, 8], "$each": [{"wd": 1}, {"lr": 9, "seed": [0, 1]}]}') == [
        {WD: 1, LR: 7},
        {WD: 1, LR: 8},
        {WD: 0, LR: 9, SEED: 0},
        {WD: 0, LR: 9, SEED: 1},
    ]


def test_an_inner_key_wins_also_under_its_other_name(points):
    text = '{"lr": [1, 2, 3], "$each": [{"optimizer.optimizer_params.lr": 4}]}'
    assert points(text) == [{LR: 4}]


def test_each_nests(points):
    text = '{"$each": [{"seed": 1, "$each": [{"lr": 1}, {"lr": 2}]}, {"lr": 3}]}'
    assert points(text) == [{SEED: 1, LR: 1}, {SEED: 1, LR: 2}, {LR: 3}]


def test_the_sizes_of_the_worked_example(tmp_path):
    # 3 seeds * (5 learning rates * 2 decays + 2 optimizers * 4 * 2 + 2 * 2) = 90
    file = tmp_path / "monster.json"
    block = {
        "model": "gpt-small",
        "seed": [0, 1, 2],
        "$each": [
            {"optimizer": "adamw", "lr": [5e-4, 1e-3, 2e-3, 4e-3, 8e-3], "wd": [0, 0.1]},
            {"optimizer": ["muon", "sgd"], "lr": [0.003, 0.01, 0.03, 0.1], "aux_lr": [1, 10]},
            {"optimizer": "dap-ns-nadam", "lr": [0.0003, 0.001], "eps": [0.001, 0.01]},
        ],
    }
    file.write_text(json.dumps(block))
    sweep = params.read(file)
    assert sweep.size == len(list(sweep.points())) == 90


def test_a_leading_plus_is_kept(points):
    assert points('{"+logging": "wandb", "+args.x": 1, "++args.y": [2]}') == [
        {"+logging": "wandb", "+args.x": 1, "++args.y": 2}
    ]


def test_every_alias_names_a_group_or_a_path():
    for path in params.aliases().values():
        assert path in params.groups() or PATH.fullmatch(path)


WRONG = {  # what stands in the file: what is said of it
    "missing comma": ('{"lr": 1\n"wd": 2}', "sweep.json:2:1: Expecting ',' delimiter"),
    "trailing comma": (
        '{"lr": 1,\n}',
        "sweep.json:1:9: a comma before the closing '}'; remove it.",
    ),
    "trailing comma of a list": (
        '{\n "lr": [1, 2 , ],\n "wd": 1\n}',
        "sweep.json:2:14: a comma before the closing ']'; remove it.",
    ),
    "a line break in a text": ('{"lr": ["a,\n]"]}', "sweep.json:1:12: Invalid control character"),
    "a comma and no end": ('{"lr": [1,', "sweep.json:1:11: Expecting value"),
    "a comma in a text": ('{"lr": ["a,]" "b"]}', "sweep.json:1:15: Expecting ',' delimiter"),
    "comment": ('{ // lr\n"lr": 1}', "sweep.json:1:3: "),
    "empty file": ("", "sweep.json:1:1: "),
    "byte-order mark": (b'\xef\xbb\xbf{"lr": 1}', "sweep.json:1:1: a byte-order mark"),
    "not UTF-8": (b'{"lr": "\xff"}', "byte 8 is not UTF-8"),
    "5000 digits": ('{"lr": ' + "9" * 5000 + "}", "4300 digits"),
    "5000 brackets": ("[" * 5000, "recursion"),
    "repeated key": ('{"$each": [{"lr": 1, "lr": 2}]}', "/$each/0: the key 'lr' stands here more"),
    "NaN": ('{"lr": [1, NaN]}', "/lr/1: NaN is no finite number"),
    "infinity": ('{"lr": -Infinity}', "/lr: -Infinity is no finite"),
    "overflow": ('{"lr": 1e400}', "/lr: 1e400 is no finite"),
    "a list": ("[1]", "[1]: it takes an object such as"),
    "nothing": ("{}", "it sets nothing"),
    "nothing in each": ('{"$each": [{}]}', "it sets nothing"),
    "no choices": ('{"lr": []}', "/lr: an empty list leaves nothing to run"),
    "no blocks": ('{"$each": []}', "/$each: it takes a list of objects"),
    "each of an object": ('{"$each": {"lr": 1}}', "/$each: it takes a list of objects"),
    "each of numbers": ('{"lr": 1, "$each": [3]}', "/$each/0: 3: it takes an object such as"),
    "no stages": ('{"lr": 1, "$stages": []}', "/$stages: it takes a list of objects, at least one"),
    "stages of numbers": (
        '{"lr": 1, "$stages": [{}, 3]}',
        "/$stages/1: 3: it takes an object such",
    ),
    "stages and each": ('{"$each": [{"lr": 1}], "$stages": [{}]}', "/$stages: $each stands here"),
    "stages in a stage": (
        '{"$stages": [{"lr": 1, "$stages": [{"wd": 1}]}]}',
        "/$stages/0/$stages: stages do not nest",
    ),
    "the best of nothing": ('{"$top": 1, "lr": 1}', "/$top: it stands in a block of $stages, from"),
    "the best at first": (
        '{"$stages": [{"$top": 1, "lr": 1}]}',
        "/$stages/0/$top: it stands in a b",
    ),
    "the best in a block": (
        '{"$stages": [{"lr": 1}, {"$top": 1, "$each": [{"$top": 2, "wd": 1}]}]}',
        "/$stages/1/$each/0/$top: it stands in a block of $stages",
    ),
    "no best": (
        '{"$stages": [{"lr": 1}, {"wd": 1}]}',
        '/$stages/1: a later stage takes "$top": how many of the best points it carries on',
    ),
    "the best 0": (
        '{"$stages": [{"lr": 1}, {"$top": 0}]}',
        "/$stages/1/$top: 0: it takes a number",
    ),
    "the best of all": ('{"$stages": [{"lr": 1}, {"$top": 1.0}]}', "or a share of them between 0"),
    "the true best": (
        '{"$stages": [{"lr": 1}, {"$top": true}]}',
        "/$stages/1/$top: true: it takes",
    ),
    "times at first": ('{"lr": {"times": [1, 2]}}', "/lr: times multiplies the value of the stage"),
    "times of a number": (
        '{"$stages": [{"lr": 1}, {"$top": 1, "lr": {"times": 2}}]}',
        '/$stages/1/lr/times: {"times": 2}: it takes a list of factors',
    ),
    "times minus": (
        '{"$stages": [{"lr": 1}, {"$top": 1, "lr": {"times": [1, -2]}}]}',
        "/$stages/1/lr/times: -2: a factor is a number above 0",
    ),
    "times of nothing": (
        '{"$stages": [{"lr": 1}, {"$top": 1, "wd": {"times": [1, 2]}}]}',
        "/$stages/1/wd: times multiplies a carried value: give optimizer.optimizer_params.weight",
    ),
    "times of a text": (
        '{"$stages": [{"dtype": "float32"}, {"$top": 1, "dtype": {"times": [1, 2]}}]}',
        "/$stages/1/dtype: times multiplies a carried value",
    ),
    "times of some": (
        '{"$stages": [{"$each": [{"lr": 1}, {"wd": 1}]}, {"$top": 1, "lr": {"times": [2]}}]}',
        "/$stages/1/lr: times multiplies a carried value",
    ),
    "misspelt word": ('{"$eech": []}', "/$eech: there is no such word. Did you mean '$each'?"),
    "misspelt alias": ('{"sed": 1}', "/sed: there is no such key. Did you mean 'seed'?"),
    "misspelt group": ('{"optimiser": 1}', "Did you mean 'optimizer'?"),
    "far from any": ('{"zzz": 1}', "A key is a group (checkpoint, clipping, data,"),
    "two names": ('{"lr": 1, "optimizer.optimizer_params.lr": 2}', "lr says this, too: both are"),
    "plus and none": ('{"args.x": 1, "+args.x": 2}', "/+args.x: args.x says this, too"),
    "plus an alias": ('{"+lr": 1}', "/+lr: write 'lr', without '+'"),
    "hydra's own": ('{"hydra.run.dir": "x"}', "said on the command line: --via, --cluster"),
    "launcher": ('{"hydra/launcher": "x"}', "/hydra~1launcher: where and how"),
    "cluster": ('{"cluster.partition": "x"}', "said on the command line"),
    "target": ('{"+model._target_": "os.system"}', "underscores belong to Hydra"),
    "removal": ('{"~optimizer": null}', "/~0optimizer: a key cannot be removed"),
    "package": ('{"optimizer@x": "adamw"}', "/optimizer@x: there is no such key"),
    "equals sign": ('{"model.config.n=1": 2}', "there is no such key"),
    "not ASCII": ('{"model.côté": 2}', "there is no such key"),
    "misspelt generator": ('{"lr": {"logg": [1, 2, 3]}}', "Did you mean 'log'?"),
    "generator in a list": ('{"lr": [1, {"lin": [2, 3, 4]}]}', '/lr/1: {"lin": ...} stands alone'),
    "two generators": ('{"lr": {"log": [1, 2, 3], "lin": [1, 2, 3]}}', "an object with one key"),
    "object": ('{"model": {"config": 1}}', "/model: an object is no value; write a dotted path"),
    "object in a list": ('{"lr": [1, {"a": 2}]}', "/lr/1: an object is no value"),
    "object in a choice": ('{"betas": [[{"a": 2}]]}', "/betas/0: an object cannot stand inside"),
    "newline": ('{"data.name": "a\\nb"}', "/data.name: 'a\\nb': it takes one line"),
    "half a character": ('{"data.name": "\\ud800"}', "it takes one line of printable text"),
    "missing value": ('{"data.name": "???"}', "'???' means a missing value"),
    "environment": ('{"data.name": "${oc.env:HOME}"}', "no resolvers, no environment"),
    "nested resolver": ('{"data.name": ["${a.${b}}"]}', "/data.name/0: "),
    "escaped": ('{"data.name": "\\\\${a.b}"}', "no resolvers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_gets_one_clear_message(points, name):
    text, message = WRONG[name]
    with pytest.raises(ConfigError) as error:
        points(text)
    assert message in str(error.value)
    assert len(error.value.problems) == 1


def test_all_problems_come_in_one_report(points):
    with pytest.raises(ConfigError) as error:
        points('{"sed": 1, "lr": [], "$each": [{"wd": {}}, {"~x": 1}]}')
    assert [problem.key for problem in error.value.problems] == [
        "/sed",
        "/lr",
        "/$each/0/wd",
        "/$each/1/~0x",
    ]


@pytest.mark.parametrize("name", ["nowhere.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match="nowhere.json: No such file|Is a directory"):
        params.read(Path(tmp_path / name))
