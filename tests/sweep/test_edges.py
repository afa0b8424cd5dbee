"""A best value at the end of its axis is told, and what would go on there."""

import itertools
import json
import math
from pathlib import Path

import pytest

from gptopt.sweep import params
from gptopt.sweep.edges import beyond_end
from gptopt.sweep.extend import extend
from gptopt.sweep.status import best_lines, bests

LR = "optimizer.optimizer_params.lr"
WD = "optimizer.optimizer_params.weight_decay"
RATIO = "optimizer.optimizer_params.muon_lr_ratio"
AUX = "optimizer.optimizer_params.aux.lr"
SEED = "training.training_params.seed"


@pytest.fixture
def found(planned, end):
    """The best settings of a sweep after all its runs ended with ``loss(point)``."""

    def found(content, loss):
        plan = planned(content)
        stage = plan.stages[0]
        points = itertools.chain(*stage.points)
        for point, run in zip(points, stage.runs, strict=True):
            if (value := loss(point)) is not None:
                end(run, value)
        return bests(planned(content))

    return found


def told(bests):
    return [str(edge) for best in bests for edge in best.edges]


def test_a_best_value_at_the_end_is_told_with_what_to_add(found):
    best = found({"lr": [0.025, 0.05, 0.1]}, lambda point: -point[LR])
    assert told(best) == ["EDGE lr=0.1 (best is last) -> add 0.2, 0.4"]
    best = found({"lr": [0.2, 0.05, 0.1], "wd": 1}, lambda point: point[LR])
    assert told(best) == ["EDGE lr=0.05 (best is first) -> add 0.025, 0.0125"]


@pytest.mark.parametrize(
    ("lr", "loss"),
    [
        ([1, 2, 3], lambda lr: abs(lr - 2)),  # inside
        ([1, 2], lambda lr: lr),  # two values have no inside
        ([1, 2, 3], lambda lr: None if lr == 2 else lr),  # one has no result yet
        ([1, 2, 3], lambda lr: math.inf),  # all diverged: nothing is best
    ],
)
def test_no_edge_is_told_where_there_is_none(found, lr, loss):
    assert told(found({"lr": lr}, lambda point: loss(point[LR]))) == []


def test_a_diverged_neighbour_makes_the_best_value_an_inner_one(found):
    best = found({"lr": [1, 2, 3]}, lambda point: math.inf if point[LR] == 3 else -point[LR])
    assert told(best) == []


def test_every_optimizer_has_its_own_best_and_seeds_are_averaged(found):
    content = {
        "seed": [0, 1],
        "$each": [{"optimizer": "adamw", "lr": [1, 2, 4]}, {"optimizer": "muon", "lr": [4, 8, 16]}],
    }
    # with seed 0 alone, adamw would be best at 1
    adamw = {(1, 0): 0.0, (1, 1): 9.0, (2, 0): 2.0, (2, 1): 2.0, (4, 0): 3.0, (4, 1): 3.0}

    def loss(point):
        is_adamw = point["optimizer"] == "adamw"
        return adamw[point[LR], point[SEED]] if is_adamw else -float(point[LR])

    best = found(content, loss)
    assert [(one.group["optimizer"], one.setting.points[0][LR]) for one in best] == [
        ("adamw", 2),
        ("muon", 16),
    ]
    assert told(best) == ["EDGE lr=16 (best is last) -> add 32, 64"]


def test_what_was_drawn_is_no_axis_and_its_multiples_are(planned, end):
    first = {"$sample": 5, "lr": {"loguniform": [1, 100]}, "wd": {"uniform": [0, 1]}}
    content = {"$stages": [first, {"$top": 1, "lr": {"times": [0.5, 1, 2]}}]}
    for number in (0, 1):
        stage = planned(content).stages[number]
        for point, run in zip(stage.points[0], stage.runs, strict=True):
            end(run, -point[LR])
    drawn, multiplied = bests(planned(content))
    assert drawn.edges == []
    assert [list(edge.best) for edge in multiplied.edges] == [[LR]]


def test_a_lower_mean_of_easier_seeds_is_passed_over_and_told(planned, found):
    # seed 0 is easy: over all of its seeds lr=1 has the mean 2, on seed 0 it beats lr=2
    content = {"$each": [{"lr": 1, "seed": [0, 1, 2]}, {"lr": 2, "seed": 0}]}
    losses = {(1, 0): 1.0, (1, 1): 2.0, (1, 2): 3.0, (2, 0): 1.5}
    best = found(content, lambda point: losses[point[LR], point[SEED]])
    assert best_lines(best, planned(content).stages) == [
        "best: lr=1: val_loss 2.0000, mean of 3 runs",
        "  ! its settings have 1 to 3 seeds and were compared over the seeds they share;"
        " a lower mean, 1.5000 of 1, was passed over",
    ]


def test_values_that_go_together_are_one_axis(found):
    content = {"optimizer": "muon", "$zip": {"lr": [0.01, 0.02, 0.04], "aux_lr": [0.1, 0.2, 0.4]}}
    best = found(content, lambda point: point[LR])
    assert told(best) == [
        "EDGE lr=0.01, aux_lr=0.1 (best is first) -> add 0.005, 0.0025 with 0.05, 0.025"
    ]


def test_what_is_compared_under_is_no_axis(found):
    content = {"lr": 1, "steps": [1, 2, 4], "bs": [1, 2, 4], "n_layer": [1, 2, 3]}
    best = found(content, lambda point: -point["model.config.n_layer"])
    assert len(best) == 3 * 3 * 3
    assert told(best) == []


def test_a_text_that_differs_has_an_axis_of_its_own(found):
    # 8 lies inside of what was tried with either, but with nesterov it is the end
    content = {
        "optimizer": "muon",
        "$each": [{"nesterov": True, "lr": [2, 4, 8]}, {"nesterov": False, "lr": [16, 32, 64]}],
    }
    path = "optimizer.optimizer_params.nesterov"
    best = found(content, lambda point: -point[LR] if point[path] else point[LR])
    assert told(best) == ["EDGE lr=8 (best is last) -> add 16, 32"]


def test_zero_is_no_edge_below(found):
    assert told(found({"wd": [0, 0.1, 0.2]}, lambda point: point[WD])) == []
    best = found({"wd": [0, 0.1, 0.2]}, lambda point: -point[WD])
    assert told(best) == ["EDGE wd=0.2 (best is last) -> add 0.3, 0.4"]


@pytest.mark.parametrize(
    ("axis", "is_last", "values"),
    [
        ([0.025, 0.05, 0.1], True, [0.2, 0.4]),
        ([0.0003, 0.001, 0.003, 0.01], True, [0.03, 0.1]),  # every other step is a factor of 10
        ([0.0003, 0.001, 0.003, 0.01], False, [0.0001, 0.00003]),
        ([1e-4, 3.16228e-4, 1e-3], True, [3.162e-3, 0.01]),  # a factor of 10^(1/2), rounded
        ([0, 0.03, 0.1, 0.3, 1.0], True, [3, 10]),
        ([0.1, 0.2, 0.3], True, [0.4, 0.5]),
        ([0.1, 0.2, 0.3], False, [0.05, 0.025]),  # the same difference would end at 0
        ([-1, 0, 1], False, [-2, -3]),
        ([8, 16, 32], False, [4, 2]),
        ([0.9, 0.95, 0.99], True, [0.998, 0.9996]),  # 1 - 0.05/5, and again a fifth of that
    ],
)
def test_an_axis_goes_on_as_it_came(axis, is_last, values):
    assert beyond_end(axis, is_last) == values


def extended(found):
    sweep = params.read(Path("a sweep.json"))
    return json.loads(extend(sweep, found).read_text())


def test_an_extension_is_a_file_of_its_own_with_the_new_points_only(found, planned, tmp_path):
    content = {"lr": [1, 2, 4], "wd": [0, 1], "betas": [[0.9, 0.95]], "seed": [0, 1]}
    best = found(content, lambda point: -point[LR] + point[WD])
    before = (tmp_path / "a sweep.json").read_text()
    more = extended(best)
    assert (tmp_path / "a sweep.json").read_text() == before
    assert more == {
        "$each": [content, {"wd": 0, "betas": [[0.9, 0.95]], "lr": [8, 16], "seed": [0, 1]}]
    }
    assert [run.state.state for run in planned(more).runs] == ["completed"] * 12 + ["new"] * 4


def test_an_extension_of_values_that_go_together_pairs_them(found):
    content = {"optimizer": "muon", "$zip": {"lr": [1, 2, 4], "aux_lr": [3, 6, 12]}}
    more = extended(found(content, lambda point: -point[LR]))
    new = {"optimizer": "muon", "$zip": [{"lr": [8, 16], "aux_lr": [24, 48]}]}
    assert more == {"$each": [content, new]}


def test_an_extension_of_a_stage_stays_in_it(found, planned):
    later = {"$top": 1, "wd": [0, 1]}
    first = {"lr": [1, 2, 4]}
    content = {"seed": 7, "optimizer": ["adamw", "sgd"], "$stages": [first, later]}

    def loss(point):
        return -point[LR] if point["optimizer"] == "sgd" else abs(point[LR] - 2)

    more = extended(found(content, loss))
    new = {"optimizer": "sgd", "lr": [8, 16]}
    assert more == content | {"$stages": [{"$each": [first, new]}, later]}
    plan = planned(more)
    assert [stage.size for stage in plan.stages] == [6 + 2, 4]
    assert [run.state.state for run in plan.runs] == ["completed"] * 6 + ["new"] * 2


def test_the_first_stage_with_an_edge_is_extended_and_none_behind_it(planned, end):
    later = {"$top": 1, "lr": {"times": [1, 2, 4]}}
    content = {"$stages": [{"lr": [1, 2, 4]}, later]}
    for number in (0, 1):
        stage = planned(content).stages[number]
        for point, run in zip(stage.points[0], stage.runs, strict=True):
            end(run, -point[LR])
    best = bests(planned(content))
    assert [len(one.edges) for one in best] == [1, 1]
    new = {"$each": [{"lr": [1, 2, 4]}, {"lr": [8, 16]}]}
    assert extended(best) == {"$stages": [new, later]}


def test_there_are_two_extensions_and_none_overwrites_a_file(found, tmp_path):
    best = found({"lr": [1, 2, 4]}, lambda point: -point[LR])
    once = extend(params.read(tmp_path / "a sweep.json"), best)
    assert once.name == "a sweep.extended.json"
    with pytest.raises(ValueError, match=r"a sweep.extended.json exists, and nothing is over"):
        extend(params.read(tmp_path / "a sweep.json"), best)
    twice = extend(params.read(once), best)
    assert twice.name == "a sweep.extended-2.json"
    with pytest.raises(ValueError, match="extended 2 times, and its best value still lies at"):
        extend(params.read(twice), best)


def test_the_best_is_told_in_words_with_its_edge_beneath(found, planned):
    content = {"lr": [1, 2, 4], "seed": [0, 1]}
    best = found(content, lambda point: 5 - point[LR] + point[SEED])
    assert best_lines(best, planned(content).stages) == [
        "best: lr=4: val_loss 1.5000, mean of 2 runs",
        "  EDGE lr=4 (best is last) -> add 8, 16",
    ]
