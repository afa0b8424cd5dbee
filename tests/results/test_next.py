from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptopt import layout
from gptopt.results import load
from gptopt.results.next import propose

from .rivals import write_rival

LR = "optimizer.optimizer_params.lr"
SEED = "training.training_params.seed"


def proposed(root: Path) -> tuple[list[dict[str, Any]], str]:
    """The blocks of the proposed file, each with what stands above them, and the reasons."""
    found = propose(load(root))
    document = json.loads(found.text) if found.text else {"$each": []}
    shared = {key: value for key, value in document.items() if key != "$each"}
    return [shared | block for block in document.get("$each", [{}])], "\n".join(found.reasons)


def test_a_best_rate_at_the_edge_is_followed_beyond_it_with_all_its_seeds(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {0.1: [3.1] * 3, 0.3: [2.9] * 3, 0.9: [2.7, 2.71, 2.72]})
    (block,), reasons = proposed(tmp_path)
    assert block[LR] == [2.7, 8.1]
    assert block[SEED] == [0, 1, 2]
    assert "its best rate 0.9 is the highest tried" in reasons


def test_the_lowest_rate_is_followed_downwards(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {0.1: [2.1, 2.2, 2.3], 0.2: [2.9] * 3, 0.4: [2.7] * 3})
    (block,), _ = proposed(tmp_path)
    assert block[LR] == [0.025, 0.05]


def test_an_interior_optimum_is_halved_and_its_other_settings_are_carried(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {0.1: [2.9] * 3, 0.4: [2.1, 2.2, 2.3], 1.6: [2.7] * 3})
    (block,), reasons = proposed(tmp_path)
    assert block[LR] == [0.2, 0.8]
    assert "sgd: its best rate 0.4 lies inside; add 0.2 and 0.8, half a step around it." in reasons
    assert block["optimizer"] == "sgd"
    assert block["training.training_params.batch_size"] == 8
    assert not [key for key in block if key.startswith("paths")]


def test_a_fine_grid_is_left_alone(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {1.0: [2.9] * 3, 1.3: [2.1, 2.2, 2.3], 1.6: [2.7] * 3})
    blocks, reasons = proposed(tmp_path)
    assert blocks == []
    assert "settled within a factor of 1.5" in reasons


def test_an_open_comparison_gets_the_seeds_that_settle_it(tmp_path: Path) -> None:
    fine = {1.0: [2.9] * 3, 1.6: [2.7] * 3}
    write_rival(tmp_path, "sgd", fine | {1.3: [2.00, 2.02, 2.04]})
    write_rival(tmp_path, "signum", fine | {1.3: [2.02, 2.04, 2.06]})
    blocks, reasons = proposed(tmp_path)
    # gap = sd = 0.02: 2 (1.960 + 0.842)^2 = 15.7 with a known sd, 1.0 more for Student's t
    assert "17 seeds settle it" in reasons
    assert {block["optimizer"]: block[SEED] for block in blocks} == {
        "sgd": list(range(3, 17)),
        "signum": list(range(3, 17)),
    }


def test_a_difference_too_small_to_be_seen_is_left(tmp_path: Path) -> None:
    fine = {1.0: [2.9] * 3, 1.6: [2.7] * 3}
    write_rival(tmp_path, "sgd", fine | {1.3: [2.00, 2.02, 2.04]})
    write_rival(tmp_path, "signum", fine | {1.3: [2.001, 2.021, 2.041]})
    blocks, reasons = proposed(tmp_path)
    assert "more than 20 seeds, so call them equal" in reasons
    assert blocks == []


def test_a_single_seed_asks_for_three(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {1.0: [2.9], 1.3: [2.0], 1.6: [2.7]})
    (block,), reasons = proposed(tmp_path)
    assert (block[LR], block[SEED]) == (1.3, [1, 2])
    assert "its best trial has n = 1" in reasons


def test_seeds_with_other_numbers_count_as_well(tmp_path: Path) -> None:
    for run in write_rival(tmp_path, "sgd", {1.0: [2.9] * 7, 1.3: [2.0] * 7, 1.6: [2.7] * 7}):
        config = yaml.safe_load((run / layout.RESOLVED).read_text())
        if config["training"]["training_params"]["seed"] not in (1, 6):
            shutil.rmtree(run)
    (block,), _ = proposed(tmp_path)
    assert (block[LR], block[SEED]) == (1.3, 0)  # two of three are there


def test_what_only_diverged_is_left_to_a_person(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {1.0: [2.9] * 3, 2.0: [2.9] * 3}, state="diverged")
    blocks, reasons = proposed(tmp_path)
    assert "every run diverged; try rates below 1 by hand" in reasons
    assert blocks == []


@pytest.mark.parametrize(("lr", "rates"), [(1.0, [0.5, 2.0]), (0.003, [0.0015, 0.006])])
def test_a_lone_rate_is_halved_and_doubled(tmp_path: Path, lr: float, rates: list[float]) -> None:
    write_rival(tmp_path, "sgd", {lr: [2.0, 2.1, 2.2]})
    (block,), _ = proposed(tmp_path)
    assert block[LR] == rates
    assert math.sqrt(rates[0] * rates[1]) == pytest.approx(lr)
