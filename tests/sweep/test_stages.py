"""Sweeps in stages: what is carried on, and what the next stage makes of it."""

import math

import pytest

from gptopt.config.problems import ConfigError
from gptopt.layout import PROJECT
from gptopt.sweep.generators import Times
from gptopt.sweep.plan import plan

LR = "optimizer.optimizer_params.lr"
WD = "optimizer.optimizer_params.weight_decay"
RATIO = "optimizer.optimizer_params.muon_lr_ratio"
SEED = "training.training_params.seed"
STEPS = "training.training_params.max_steps"


@pytest.fixture
def run_stage(end):
    """Ends the runs of the last known stage with ``loss(point)``; returns its points."""

    def run_stage(planned, loss):
        stage = [stage for stage in planned.stages if stage.is_known][-1]
        points = [point for of_part in stage.points for point in of_part]
        for point, run in zip(points, stage.runs, strict=True):
            end(run, loss(point))
        return points

    return run_stage


def points(planned, number):
    return [point for of_part in planned.stages[number - 1].points for point in of_part]


def sizes(planned):
    return [stage.size for stage in planned.stages]


LADDER = {  # of GPT-opt: the learning rate, then the ratio, then both again with seeds
    "optimizer": ["muon", "scion", "muonmax-momo"],
    "$stages": [
        {"lr": {"log": [1e-4, 0.1, 7]}, "muon_lr_ratio": 1},
        {"$top": 1, "muon_lr_ratio": [0.1, 0.3, 1, 3, 10]},
        {"$top": 1, "lr": {"times": [0.5, 1, 2]}, "seed": [0, 1, 2]},
    ],
}


def test_each_optimizer_goes_on_from_its_own_best_point_stage_after_stage(planned, run_stage):
    best = {"muon": 0.01, "scion": 0.001, "muonmax-momo": 0.1}

    def loss(point):
        return abs(math.log(point[LR] / best[point["optimizer"]])) + abs(point[RATIO] - 3)

    first = planned(LADDER)
    assert sizes(first) == [21, 15, 27]
    assert [stage.is_known for stage in first.stages] == [True, False, False]
    assert len(first.runs) == 3 * 7
    run_stage(first, loss)

    second = planned(LADDER)
    assert [stage.is_known for stage in second.stages] == [True, True, False]
    assert {(point["optimizer"], point[LR]) for point in points(second, 2)} == set(best.items())
    assert len(second.to_do) == 3 * 4  # with the ratio 1 they were done in the first stage
    run_stage(second, loss)

    third = planned(LADDER)
    assert sizes(third) == [21, 15, 27]
    assert {point[RATIO] for point in points(third, 3)} == {3}
    tried = {point[LR] for point in points(third, 3) if point["optimizer"] == "muon"}
    assert tried == {0.005, 0.01, 0.02}
    run_stage(third, loss)
    assert planned(LADDER).to_do == []
    assert planned(LADDER).notes == []


def test_halving_by_complete_horizons_rounds_up(planned, run_stage):
    content = {
        "optimizer": "soap",
        "$stages": [
            {"$sample": 27, "lr": {"loguniform": [1e-3, 3e-2]}, "steps": 500},
            {"$top": 0.34, "steps": 1500},
            {"$top": 0.34, "steps": 4500},
        ],
    }
    first = planned(content)
    assert sizes(first) == [27, 10, 4]  # 0.34 x 27 = 9.18; 0.34 x 10 = 3.4
    rates = sorted(point[LR] for point in run_stage(first, lambda point: point[LR]))
    second = planned(content)
    assert sorted(point[LR] for point in run_stage(second, lambda point: -point[LR])) == rates[:10]
    third = planned(content)
    assert {point[STEPS] for point in points(third, 3)} == {4500}
    assert sorted(point[LR] for point in points(third, 3)) == rates[6:10]


def test_a_share_of_a_round_number_is_not_rounded_up(planned):
    # in floating point 0.07 x 100 is 7.000000000000001
    content = {"$stages": [{"seed": 0, "lr": {"lin": [1, 100, 100]}}, {"$top": 0.07, "wd": 0}]}
    assert sizes(planned(content)) == [100, 7]


def test_a_setting_counts_with_the_mean_of_its_seeds_and_keeps_them(planned, run_stage):
    losses = {(0.1, 0): 1.0, (0.1, 1): 6.0, (0.2, 0): 3.0, (0.2, 1): 3.0}
    content = {
        "$stages": [{"lr": [0.1, 0.2], "seed": [0, 1]}, {"$top": 1, "wd": [0, 0.3]}],
    }
    run_stage(planned(content), lambda point: losses[point[LR], point[SEED]])
    assert points(planned(content), 2) == [
        {LR: 0.2, SEED: seed, WD: wd} for seed in (0, 1) for wd in (0, 0.3)
    ]


def test_a_further_seed_of_a_poor_setting_changes_nothing(planned, run_stage):
    # lr=0.1 is worse on both shared seeds; its third one is easy
    losses = {(0.1, 0): 3.0, (0.1, 1): 4.0, (0.1, 2): 0.1, (0.2, 0): 2.9, (0.2, 1): 3.9}
    blocks = [{"lr": 0.1, "seed": [0, 1, 2]}, {"lr": 0.2, "seed": [0, 1]}]
    content = {"$stages": [{"$each": blocks}, {"$top": 1, "wd": 0}]}
    run_stage(planned(content), lambda point: losses[point[LR], point[SEED]])
    assert {point[LR] for point in points(planned(content), 2)} == {0.2}


def test_seeds_around_the_stages_are_averaged_too(planned, run_stage):
    content = {"seed": [0, 1], "$stages": [{"lr": [0.1, 0.2]}, {"$top": 1, "lr": {"times": [2]}}]}
    run_stage(planned(content), lambda point: point[LR] * (-1) ** point[SEED] - point[LR] / 2)
    assert points(planned(content), 2) == [{SEED: 0, LR: 0.4}, {SEED: 1, LR: 0.4}]


def test_a_seed_parts_nothing(planned):
    block = {"$each": [{"lr": 1}, {"lr": 2, "seed": 5}]}
    assert sizes(planned({"seed": 0, "$stages": [block, {"$top": 1, "wd": 3}]})) == [2, 1]


def test_diverged_is_worst_and_not_carried_on(planned, run_stage):
    content = {
        "optimizer": ["adamw", "sgd"],
        "$stages": [{"lr": [1, 2, 3], "seed": [0, 1]}, {"$top": 2, "seed": 5}],
    }

    def loss(point):
        is_lost = point["optimizer"] == "sgd" or (point[LR] < 3 and point[SEED] == 1)
        return math.inf if is_lost else 9.0

    run_stage(planned(content), loss)
    assert points(planned(content), 2) == [{"optimizer": "adamw", LR: 3, SEED: 5}]


def test_own_keys_win_over_those_that_are_carried_and_over_those_around(planned, run_stage):
    content = {"steps": 7, "$stages": [{"lr": [1, 2], "wd": 0}, {"$top": 1, "steps": 9, "wd": 5}]}
    run_stage(planned(content), lambda point: -point[LR])
    assert points(planned(content), 2) == [{STEPS: 9, LR: 2, WD: 5}]


def test_what_a_stage_varies_does_not_part_the_next_one(planned, run_stage):
    # the ratio stands around the stages for each optimizer; the second stage varies it
    content = {
        "$zip": {"optimizer": ["muon", "scion"], "muon_lr_ratio": [1, 50]},
        "$stages": [
            {"lr": [0.1, 0.2]},
            {"$top": 1, "muon_lr_ratio": {"times": [0.5, 1, 2]}},
            {"$top": 1, "wd": [0, 0.5]},
        ],
    }
    assert sizes(planned(content)) == [4, 6, 4]
    run_stage(planned(content), lambda point: point[LR])
    second = planned(content)
    assert {point[RATIO] for point in points(second, 2)} == {0.5, 1, 2, 25, 50, 100}
    run_stage(second, lambda point: -point[RATIO])
    assert {(p["optimizer"], p[RATIO]) for p in points(planned(content), 3)} == {
        ("muon", 2),
        ("scion", 100),
    }


def test_stages_may_stand_in_some_of_the_blocks(planned, run_stage):
    content = {
        "seed": 3,
        "$each": [
            {"optimizer": "adamw", "lr": [1, 2]},
            {"optimizer": "sgd", "$stages": [{"lr": [1, 2, 3]}, {"$top": 1, "wd": [0, 1]}]},
        ],
    }
    first = planned(content)
    assert sizes(first) == [5, 2]
    run_stage(first, lambda point: point[LR])
    assert points(planned(content), 2) == [
        {SEED: 3, "optimizer": "sgd", LR: 1, WD: wd} for wd in (0, 1)
    ]


def test_skip_in_a_later_stage_sees_what_is_carried(planned, run_stage):
    skip = {"optimizer": "sgd", "wd": 1}
    later = {"$top": 1, "wd": [0, 1], "$skip": [skip]}
    content = {"optimizer": ["adamw", "sgd"], "$stages": [{"lr": [1, 2]}, later]}
    assert sizes(planned(content)) == [4, 3]
    run_stage(planned(content), lambda point: point[LR])
    tried = [(point["optimizer"], point[WD]) for point in points(planned(content), 2)]
    assert tried == [("adamw", 0), ("adamw", 1), ("sgd", 0)]


def test_the_next_stage_waits_for_the_last_run(planned, run_stage, end):
    content = {"$stages": [{"lr": [1, 2, 3]}, {"$top": 1, "wd": [0, 1]}]}
    first = planned(content)
    for run in first.runs[:2]:
        end(run.run, 1.0)
    assert [stage.is_known for stage in planned(content).stages] == [True, False]
    assert planned(content).stages[0].missing == 1
    end(first.runs[2].run, 1.0)
    assert [stage.is_known for stage in planned(content).stages] == [True, True]
    content["$stages"][0]["lr"].append(4)
    assert [stage.is_known for stage in planned(content).stages] == [True, False]


def test_a_later_stage_is_checked_before_the_first_one_is_started(planned, tmp_path):
    content = {"$stages": [{"lr": [1, 2]}, {"$top": 1, "model.config.n_layers": 2}]}
    with pytest.raises(ConfigError, match=r"stage 2.*n_layers=2: there is no such key"):
        planned(content)
    assert [path.name for path in tmp_path.iterdir()] == ["a sweep.json"]


def test_a_later_stage_has_the_same_limit(planned):
    content = {"$stages": [{"lr": [1, 2]}, {"$top": 1, "seed": {"lin": [1, 10000, 10000]}}]}
    with pytest.raises(ConfigError, match="stage 2: more runs than the limit of 100"):
        planned(content)


@pytest.mark.parametrize(
    ("carried", "factor", "value"),
    [
        (0.001, 0.5, 0.0005),
        (3e-4, 3, 0.0009),
        (0.1, 1 / 3, 0.0333333),
        (32, 2, 64),
        (5, 0.5, 2.5),
        (50, 1e308, math.inf),  # which no key takes
    ],
)
def test_times_multiplies_and_rounds_to_six_digits(carried, factor, value):
    assert Times(factor).of(carried) == value
    assert isinstance(Times(factor).of(carried), type(value))


def test_times_1_is_the_carried_value_itself():
    assert Times(1).of(0.123456789) == 0.123456789


def test_the_stages_of_the_project_have_the_sizes_counted_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = plan(PROJECT / "params" / "two_stage.json", [], max_runs=100)
    assert sizes(planned) == [3 * 8, 3 * 5, 3 * 3 * 3]
