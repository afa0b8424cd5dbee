"""The words of sweep files: which points they mean, and what is said of those that mean none."""

import json

import pytest

from gptopt.config.problems import ConfigError
from gptopt.layout import PROJECT
from gptopt.sweep import params

LR = "optimizer.optimizer_params.lr"
WD = "optimizer.optimizer_params.weight_decay"
BETAS = "optimizer.optimizer_params.betas"
SEED = "training.training_params.seed"
BS = "training.training_params.batch_size"
RCOND = "optimizer.optimizer_params.rcond"
ACCELERATED = "optimizer.optimizer_params.accelerated"


@pytest.fixture
def sweep(tmp_path):
    def read(content):
        file = tmp_path / "sweep.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return params.read(file)

    return read


SIZES = {  # sizes counted by hand
    "grid": ({"lr": [0.0003, 0.001, 0.003], "wd": [0, 0.1]}, 3 * 2),
    "generator and list-valued choice": (
        {
            "optimizer": "adamw",
            "lr": {"log": [1e-4, 1e-2, 5]},
            "betas": [[0.9, 0.95], [0.95, 0.95]],
            "seed": [0, 1, 2],
        },
        5 * 2 * 3,
    ),
    "pairs": ({"$zip": {"bs": [32, 64, 128], "lr": [0.001, 0.0014, 0.002]}, "seed": [0, 1]}, 6),
    "several pairs": ({"$zip": [{"bs": [1, 2]}, {"lr": [1, 2, 3], "wd": [1, 2, 3]}]}, 2 * 3),
    "sub-sweeps": (
        {
            "model": "gpt-small",
            "seed": [0, 1, 2],
            "$alias": {"rcond": RCOND},
            "$each": [
                {"optimizer": "adamw", "lr": {"log": [5e-4, 8e-3, 5]}, "wd": [0, 0.1]},
                {
                    "optimizer": ["muon", "muonmax-momo"],
                    "lr": {"log": [3e-3, 0.1, 4]},
                    "muon_lr_ratio": [1, 10],
                },
                {"optimizer": "dap-ns-nadam", "lr": [0.0003, 0.001], "rcond": [0.001, 0.01]},
            ],
        },
        3 * (5 * 2 + 2 * 4 * 2 + 2 * 2),
    ),
    "draws": (
        {
            "optimizer": "adamw",
            "$sample": {"n": 20, "method": "halton"},
            "lr": {"loguniform": [1e-4, 1e-2]},
            "wd": {"loguniform": [0.005, 1]},
        },
        20,
    ),
    "star": (
        {
            "optimizer": "adamw",
            "$alias": {"beta1": "args.beta1"},
            "$center": {"lr": 0.008, "wd": 0.1, "beta1": 0.9},
            "lr": [0.004, 0.008, 0.016],
            "wd": [0, 0.1, 0.2],
            "beta1": [0.9, 0.95],
        },
        1 + 2 + 2 + 1,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_an_example_has_the_size_that_was_counted_by_hand(sweep, name):
    content, size = SIZES[name]
    read = sweep(content)
    assert read.size == len(list(read.points())) == size


def test_pairs_go_together_and_are_crossed_with_the_rest(sweep):
    read = sweep({"$zip": {"bs": [32, 64], "lr": [0.1, 0.2]}, "seed": [0, 1]})
    assert list(read.points()) == [
        {BS: 32, LR: 0.1, SEED: 0},
        {BS: 32, LR: 0.1, SEED: 1},
        {BS: 64, LR: 0.2, SEED: 0},
        {BS: 64, LR: 0.2, SEED: 1},
    ]


def test_an_inner_key_takes_its_place_in_the_pairs_around_it(sweep):
    read = sweep({"$zip": {"bs": [1, 2], "lr": [3, 4]}, "$each": [{"lr": 5}, {"wd": 0}]})
    assert list(read.points()) == [
        {BS: 1, LR: 5},
        {BS: 2, LR: 5},
        {BS: 1, LR: 3, WD: 0},
        {BS: 2, LR: 4, WD: 0},
    ]


def test_a_generator_may_be_paired(sweep):
    read = sweep({"$zip": {"bs": [8, 16, 32], "lr": {"lin": [1, 2, 3]}}})
    assert [(point[BS], point[LR]) for point in read.points()] == [(8, 1), (16, 1.5), (32, 2)]


def test_a_star_leaves_its_centre_along_one_axis_at_a_time(sweep):
    read = sweep({"$center": {"lr": 2, "wd": 0}, "lr": [1, 2, 4], "wd": [0, 0.1], "seed": [0, 1]})
    arms = [{LR: 2, WD: 0}, {LR: 1, WD: 0}, {LR: 4, WD: 0}, {LR: 2, WD: 0.1}]
    assert list(read.points()) == [{SEED: seed} | arm for seed in (0, 1) for arm in arms]


def test_a_centre_need_not_be_among_the_values(sweep):
    # 1 + |{1, 4}|, and the centre of a list-valued key is one list.
    read = sweep({"$center": {"lr": 2, "betas": [0.9, 0.95]}, "lr": [1, 4], "betas": [[0.8, 0.9]]})
    assert [(point[LR], point[BETAS]) for point in read.points()] == [
        (2, [0.9, 0.95]),
        (1, [0.9, 0.95]),
        (4, [0.9, 0.95]),
        (2, [0.8, 0.9]),
    ]


def test_a_star_without_one_of_its_keys_has_no_point_twice(sweep):
    content = {"$center": {"lr": 2, "wd": 0}, "lr": [1, 2], "wd": [0, 1, 2], "$each": [{"wd": 9}]}
    assert list(sweep(content).points()) == [{LR: 2, WD: 9}, {LR: 1, WD: 9}]


def test_every_draw_is_crossed_with_the_keys_around_and_in_its_block_no_list_is(sweep):
    block = {"$sample": 8, "bs": 4, "lr": {"uniform": [0, 1]}, "wd": [0, 0.1]}
    points = list(sweep({"seed": [0, 1], "$each": [block]}).points())
    assert len(points) == 2 * 8
    assert {point[BS] for point in points} == {4}
    draws = [(point[LR], point[WD]) for point in points]
    assert draws[:8] == draws[8:]
    # Mirrored in base 2: 1/2 1/4 3/4 1/8; in base 3: 1/3 2/3 1/9 4/9 7/9 2/9 5/9 8/9.
    assert draws[:4] == [(0.5, 0), (0.25, 0.1), (0.75, 0), (0.125, 0)]
    assert sorted(wd for _, wd in draws[:8]) == [0] * 4 + [0.1] * 4


def test_more_draws_keep_those_that_were_there(sweep):
    def drawn(n, method):
        sample = {"n": n, "method": method, "seed": 3}
        content = {"$sample": sample, "lr": {"loguniform": [1e-4, 1]}, "wd": {"uniform": [0, 1]}}
        return list(sweep(content).points())

    for method in ("halton", "random"):
        assert drawn(20, method)[:7] == drawn(7, method)


def test_skip_drops_what_has_all_its_values_and_keeps_the_order(sweep):
    content = {"lr": [1, 2], "seed": [0, 1], "wd": [0, 3], "$skip": [{"lr": 1, "wd": [3]}]}
    assert [tuple(point.values()) for point in sweep(content).points()] == [
        (1, 0, 0),
        (1, 1, 0),
        (2, 0, 0),
        (2, 0, 3),
        (2, 1, 0),
        (2, 1, 3),
    ]


def test_skip_reaches_into_the_blocks_and_sees_their_keys(sweep):
    content = {
        "$skip": [{"optimizer": "muon", "lr": [1, 2]}],
        "lr": [1, 2, 3],
        "$each": [{"optimizer": "adamw"}, {"optimizer": "muon"}, {"optimizer": "muon", "lr": 4}],
    }
    points = [(point["optimizer"], point[LR]) for point in sweep(content).points()]
    assert points == [("adamw", 1), ("adamw", 2), ("adamw", 3), ("muon", 3), ("muon", 4)]


def test_skip_tells_a_number_from_a_truth_value_but_1_is_1_0(sweep):
    nesterov = "optimizer.optimizer_params.nesterov"
    read = sweep(
        {"lr": [1, 2], "nesterov": [True, False], "$skip": [{"lr": 1.0, "nesterov": True}]}
    )
    assert [point[nesterov] for point in read.points()] == [False, True, False]
    with pytest.raises(ConfigError, match="no point has these values"):
        sweep({"nesterov": [True, False], "$skip": [{"nesterov": 1}]})


def test_skip_costs_nothing_where_it_says_nothing(sweep):
    # 10^12 points, of which skip speaks of 10^2 combinations.
    many = {"lr": {"lin": [0, 1, 10_000]}, "wd": {"lin": [0, 1, 10_000]}}
    few = {"seed": list(range(10)), "bs": list(range(1, 11)), "$skip": [{"seed": 0, "bs": 1}]}
    assert sweep(few | many).size == 99 * 10**8


def test_an_alias_ties_several_paths_and_holds_in_the_blocks_inside(sweep):
    content = {
        "$alias": {"rcond": [RCOND, ACCELERATED], "rate": "lr"},
        "$each": [{"rcond": [0.1, 0.2], "$skip": [{"rcond": 0.2, "rate": 2}], "rate": [1, 2]}],
    }
    assert list(sweep(content).points()) == [
        {RCOND: 0.1, ACCELERATED: 0.1, LR: 1},
        {RCOND: 0.1, ACCELERATED: 0.1, LR: 2},
        {RCOND: 0.2, ACCELERATED: 0.2, LR: 1},
    ]


def test_an_alias_of_the_file_goes_before_one_of_the_project(sweep):
    read = sweep({"$alias": {"lr": "optimizer.optimizer_params.aux.lr"}, "lr": 1})
    assert list(read.points()) == [{"optimizer.optimizer_params.aux.lr": 1}]


def test_the_words_compose(sweep):
    content = {
        "$zip": {"bs": [8, 16], "context_length": [64, 32]},
        "$each": [
            {"optimizer": "adamw", "$sample": 5, "lr": {"loguniform": [1e-4, 1e-2]}},
            {
                "optimizer": "muon",
                "$center": {"lr": 0.02, "wd": 0.1},
                "lr": {"log": [0.01, 0.04, 3]},
                "wd": [0, 0.1],
                "$skip": [{"bs": 16, "wd": 0}],
                "$each": [{"seed": 0}, {"seed": 1, "lr": 0.1}],
            },
        ],
    }
    # 2 pairs x 5 draws; seed 0: 2 x a star of 1 + 2 + 1 less one; seed 1: 2 x (wd 0.1, 0) less one
    assert sweep(content).size == 2 * 5 + (2 * 4 - 1) + (2 * 2 - 1)


def test_the_parameter_files_of_the_project_have_the_sizes_counted_by_hand():
    # monster: adamw 5 x 2, two optimizers 4 x 2 less one, muon 3 pairs, dap 2 x 2, soap's star
    sizes = {"monster": 3 * (5 * 2 + (2 * 4 * 2 - 1) + 3 + 2 * 2 + (1 + 2 + 2))}
    sizes["random_search"] = 2 * 20
    sizes["muon"] = 3 * (2 * 5 + 5 + 2 * 5 + 5 + 5 + 2 * 5)
    sizes["dap"] = 3 * (5 + 5 + 2 * 5)
    sizes["two_stage"] = 3 * 8
    for name, size in sizes.items():
        assert params.read(PROJECT / "params" / f"{name}.json").size == size


WRONG = {  # what stands in the file: what is said of it
    "log of two": ('{"lr": {"log": [1, 2]}}', '/lr/log: {"log": [1, 2]}: it takes [lo, hi, n]'),
    "log of an object": ('{"lr": {"log": {"lo": 1}}}', "/lr/log: "),
    "log from 0": ('{"lr": {"log": [0, 1, 3]}}', "/lr/log: lo=0: a logarithm needs lo above 0"),
    "falling": ('{"lr": {"lin": [2, 1, 3]}}', "/lr/lin: lo=2, hi=1: lo must be below hi"),
    "all the same": ('{"lr": {"log": [1, 1, 3]}}', "lo must be below hi"),
    "one value": ('{"lr": {"lin": [1, 2, 1]}}', "n=1: it takes a whole number of values from 2"),
    "half a value": ('{"lr": {"lin": [1, 2, 2.5]}}', "n=2.5: it takes a whole number"),
    "many values": ('{"lr": {"lin": [1, 2, 1000000000]}}', "from 2 to 10,000"),
    "true as a bound": ('{"lr": {"lin": [true, 2, 3]}}', "true: lo and hi take numbers"),
    "text as a bound": ('{"lr": {"log": ["1e-4", 2, 3]}}', "'1e-4': lo and hi take numbers"),
    "400 digits": ('{"lr": {"lin": [1, 1' + "0" * 400 + ", 3]}}", "numbers of at most 1e308"),
    "uniform alone": (
        '{"lr": {"uniform": [0, 1]}}',
        '/lr: uniform is drawn by "$sample": n in the',
    ),
    "uniform of three": ('{"$sample": 2, "lr": {"uniform": [0, 1, 2]}}', "it takes [lo, hi]"),
    "loguniform from 0": ('{"$sample": 2, "lr": {"loguniform": [0, 1]}}', "needs lo above 0"),
    "uniform in a zip": (
        '{"$sample": 2, "wd": [0, 1], "$zip": {"lr": {"uniform": [0, 1]}}}',
        "/$zip/lr: what is drawn cannot",
    ),
    "uneven pairs": (
        '{"$zip": {"bs": [1, 2, 3], "lr": [1, 2]}}',
        "/$zip: bs has 3, lr has 2 values; paired lists are equally long",
    ),
    "a number in pairs": ('{"$zip": {"bs": 1}}', "/$zip/bs: 1: it takes a list, as long as"),
    "no pairs": ('{"lr": 1, "$zip": {}}', "/$zip: {}: it takes an object such as"),
    "no lists of pairs": ('{"lr": 1, "$zip": []}', "/$zip: an empty list pairs nothing"),
    "second pairs wrong": ('{"$zip": [{"lr": [1]}, 3]}', "/$zip/1: 3: it takes an object"),
    "paired and listed": ('{"lr": 1, "$zip": {"lr": [1, 2]}}', "/$zip/lr: lr says this, too"),
    "nothing to draw": ('{"$sample": 3, "lr": 1}', "/$sample: there is nothing to draw"),
    "no draws": (
        '{"$sample": 0, "lr": [1, 2]}',
        "/$sample: n=0: it takes a whole number of points",
    ),
    "draws as text": ('{"$sample": "20", "lr": [1, 2]}', "n='20': it takes"),
    "many draws": ('{"$sample": 1e9, "lr": [1, 2]}', "it takes a whole number of points, 1 to 10,"),
    "unknown setting": ('{"$sample": {"n": 2, "sead": 1}, "lr": [1, 2]}', "Did you mean 'seed'?"),
    "unknown method": ('{"$sample": {"n": 2, "method": "tpe"}, "lr": [1, 2]}', "'halton' or 'rand"),
    "random, no seed": ('{"$sample": {"n": 2, "method": "random"}, "lr": [1, 2]}', 'need a "seed"'),
    "negative seed": ('{"$sample": {"n": 2, "seed": -1}, "lr": [1, 2]}', "seed=-1: it takes"),
    "centre and sample": ('{"$sample": 2, "$center": {"lr": 1}, "lr": [1, 2]}', "one of the two"),
    "centre of nothing": ('{"lr": 1, "$center": {}}', "/$center: {}: it takes an object"),
    "centre alone": ('{"$center": {"lr": 1}}', "/$center/lr: the values to try are missing: add"),
    "unknown centre": (
        '{"wd": 1, "$center": {"lrr": 1}}',
        "/$center/lrr: there is no such key. Di",
    ),
    "centre of pairs": ('{"$zip": {"lr": [1]}, "$center": {"lr": 1}}', "/$center/lr: the values"),
    "a generator as centre": (
        '{"lr": [1], "$center": {"lr": {"log": [1, 2, 3]}}}',
        "/$center/lr: ",
    ),
    "two centres": (
        '{"lr": [1], "$center": {"lr": 1, "optimizer.optimizer_params.lr": 1}}',
        "another key of $center says this",
    ),
    "half of an alias": (
        '{"$alias": {"x": ["args.a", "args.b"]}, "x": [1, 2], "$center": {"args.a": 1}}',
        "/$center: it holds a part of the paths of an alias",
    ),
    "skip of an object": ('{"lr": 1, "$skip": {"lr": 1}}', "/$skip: it takes a list of objects"),
    "skip of anything": ('{"lr": 1, "$skip": [{}]}', "/$skip/0: {}: it takes an object"),
    "skip of nothing": ('{"lr": [1, 2], "$skip": [{"lr": 3}]}', "/$skip/0: no point has these val"),
    "skip of everything": ('{"lr": 1, "$skip": [{"lr": 1}]}', "$skip drops every point"),
    "unknown in skip": (
        '{"lr": 1, "$skip": [{"lrr": 1}]}',
        "/$skip/0/lrr: there is no such key. D",
    ),
    "skip among many": (
        '{"lr": {"lin": [0, 1, 1000]}, "wd": {"lin": [0, 1, 1000]}, "$skip": [{"lr": 0, "wd": 0}]}',
        "/$skip/0: 1,000,000 points to go through; it takes at most 100,000",
    ),
    "alias of a number": (
        '{"lr": 1, "$alias": {"x": 3}}',
        "/$alias/x: 3: it takes a path or a list",
    ),
    "alias of nowhere": (
        '{"lr": 1, "$alias": {"x": "lrr"}}',
        "/$alias/x: 'lrr': there is no such k",
    ),
    "alias of a word": ('{"lr": 1, "$alias": {"$x": "lr"}}', "/$alias/$x: a short name takes"),
    "alias twice": ('{"lr": 1, "$alias": {"x": ["wd", "wd"]}}', "/$alias/x: it names optimizer.op"),
    "alias of nothing": ('{"lr": 1, "$alias": {}}', "/$alias: it takes an object such as"),
    "plus an alias": ('{"$alias": {"x": "+args.x"}, "+x": 1}', "/+x: write 'x'; the + goes into $"),
    "misspelt alias": ('{"$alias": {"thing": "args.x"}, "thign": 1}', "Did you mean 'thing'?"),
    "alias and path": ('{"$alias": {"x": ["wd", "lr"]}, "x": 1, "lr": 2}', "/lr: x says this, too"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_word_gets_one_clear_message(sweep, name):
    text, message = WRONG[name]
    with pytest.raises(ConfigError) as error:
        sweep(text)
    assert message in str(error.value)
    assert len(error.value.problems) == 1


def test_problems_of_all_words_come_in_one_report(sweep):
    content = {
        "$alias": {"x": 3},
        "$skip": [{"lrr": 1}],
        "$zip": {"bs": [1, 2], "seed": [1]},
        "lr": {"log": [0, 1, 2]},
        "x": 1,
        "$each": [{"wd": {"uniform": [0, 1]}}, {"$center": {"lr": 1}}, {"$top": 1}],
    }
    with pytest.raises(ConfigError) as error:
        sweep(content)
    assert sorted(problem.key for problem in error.value.problems) == sorted(
        ["/$alias/x", "/$skip/0/lrr", "/$zip", "/lr/log"]
        + ["/$each/0/wd", "/$each/1/$center/lr", "/$each/2/$top"]
    )
