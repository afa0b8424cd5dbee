from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gptopt.results.fairness import obstacles

RUN: dict[str, Any] = {
    "run_id": "a",
    "trial": "a",
    "seed": 0,
    "training.training_params.seed": 0,
    "model.config.n_layer": 2,
    "derived.total_tokens": 1000,
    "run.fingerprints.eval": "e",
    "run.fingerprints.init_weights": "w",
    "run.fingerprints.data_order": "o",
}


def between(of_a: dict[str, Any], of_b: dict[str, Any], *compared: str) -> list[str]:
    a, b = (pd.DataFrame([RUN | side]) for side in (of_a, {"run_id": "b", "trial": "b"} | of_b))
    return obstacles(a, b, compared=compared)


def test_equal_numbers_of_another_type_are_no_obstacle() -> None:
    assert between({"model.config.n_layer": 2.0}, {}) == []


def test_a_key_that_one_side_lacks_counts_as_null() -> None:
    assert between({"model.config.n_kv_head": None}, {}) == []
    assert between({}, {"model.config.qk_norm": True}) == [
        "model.config.qk_norm is null and True.",
    ]


def test_fingerprints_that_are_unknown_are_no_obstacle() -> None:
    assert between({"run.fingerprints.eval": None}, {}) == []
    assert between({"run.fingerprints.init_weights": None}, {}) == []


def test_a_run_that_tells_no_fingerprint_is_no_obstacle_among_others_that_do() -> None:
    untold = {"run_id": "c", "run.fingerprints.eval": None}
    side = pd.DataFrame([RUN, RUN | untold])
    assert obstacles(side, pd.DataFrame([RUN | {"trial": "b"}]), compared=()) == []


@pytest.mark.parametrize("column", ["init_weights", "data_order"])
def test_other_seeds_may_start_elsewhere(column: str) -> None:
    other = {f"run.fingerprints.{column}": "other"}
    assert len(between(other, {})) == 1
    assert between(other | {"seed": 1, "training.training_params.seed": 1}, {}) == []


def test_another_batch_size_reads_in_another_order() -> None:
    sizes = [{"derived.global_batch_size": size} for size in (8, 16)]
    assert between(sizes[0] | {"run.fingerprints.data_order": "o8"}, sizes[1]) == []


def test_what_is_compared_may_differ_with_all_that_follows_from_it() -> None:
    deeper = {"model.config.n_layer": 3, "run.fingerprints.init_weights": "w3"}
    (told,) = between(deeper, {})
    assert told == "model.config.n_layer is 3 and 2."
    assert between(deeper, {}, "model.config.n_layer") == []


def test_of_a_side_with_several_workloads_the_condition_for_each_is_told() -> None:
    rows = [RUN, RUN, RUN | {"derived.total_tokens": 2000}, RUN | {"model.config.n_layer": 3}]
    told = obstacles(pd.DataFrame([RUN]), pd.DataFrame(rows), compared=())
    assert told == [
        "B has runs of several workloads. Add one of these conditions to it:"
        " model.config.n_layer=2,derived.total_tokens=1000 (2 runs);"
        " derived.total_tokens=2000 (1 run); model.config.n_layer=3 (1 run)."
    ]
