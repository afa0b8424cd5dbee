from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from gptopt.results import Runs, load
from gptopt.results.fairness import warnings
from gptopt.results.load import records
from gptopt.results.stats import best_trials, edge, mean_interval, trials, welch
from gptopt.results.stats.grids import rate_grid

from .rundirs import PROVENANCE, configure, eval_row, start_row, write_run


def runs_of(root: Path, finals: dict[tuple[str, float], list[float | str]]) -> pd.DataFrame:
    """Runs by (optimizer, lr) and one final loss per seed; "nan" is a diverged run."""
    for (optimizer, lr), losses in finals.items():
        for seed, loss in enumerate(losses):
            run = root / f"{optimizer}-{lr}-{seed}"
            state = "diverged" if loss == "nan" else "completed"
            rows = [start_row(1, 0), eval_row(10, 1.5), eval_row(20, loss)]
            write_run(run, configure(optimizer, lr, seed), [rows], state=state)
    return load(root).runs


def test_interval_of_three_values_is_that_of_the_t_table() -> None:
    # t(0.975; 2) = 4.3027 in every table; sd of 1, 2, 3 is 1.
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert found.high - 2 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert found.low == pytest.approx(4 - found.high)


def test_interval_of_two_values_is_that_of_a_cauchy_variable() -> None:
    # Student's t with one degree of freedom is Cauchy: its quantile is tan(pi (p - 1/2)).
    found = mean_interval([2.0, 4.0])
    assert found.high == pytest.approx(3 + math.tan(math.pi * 0.475) * math.sqrt(2 / 2))


def test_what_too_few_or_infinite_values_cannot_tell_is_nan() -> None:
    assert mean_interval([2.5]).mean == 2.5
    for found in (mean_interval([2.5]), mean_interval([]), mean_interval([1.0, math.inf])):
        assert all(math.isnan(value) for value in (found.sd, found.low, found.high))
    assert mean_interval([1.0, math.inf]).mean == math.inf
    assert math.isnan(mean_interval([]).mean)


def test_welch_of_two_pairs_has_two_degrees_of_freedom() -> None:
    # Both variances are 2, so se^2 = 2/2 + 2/2 = 2, t = -10 / sqrt(2), and by Welch's formula
    # df = 2^2 / (1 + 1) = 2, where P(|T| > t) = 1 - t / sqrt(2 + t^2).
    gap, p = welch([0.0, 2.0], [10.0, 12.0])
    assert gap == -10.0
    assert p == pytest.approx(1 - math.sqrt(50 / 52))


def test_welch_repeats_a_comparison_that_was_worked_out_elsewhere() -> None:
    # Four seeds each: 2.3099 (sd .0170) against 2.0563 (sd .0071) gave one-sided p = 5.0e-6.
    def four(mean: float, sd: float) -> list[float]:
        return [mean + sign * sd * math.sqrt(3) / 2 for sign in (-1, -1, 1, 1)]

    gap, p = welch(four(2.0563, 0.0071), four(2.3099, 0.0170))
    assert gap == pytest.approx(-0.2536)
    assert p / 2 == pytest.approx(5.0e-6, abs=0.05e-6)


def test_welch_says_nothing_without_two_values_or_any_spread() -> None:
    assert welch([1.0], [2.0, 3.0])[0] == -1.5
    assert welch([math.inf, 1.0], [2.0, 3.0])[0] == math.inf
    for sides in ([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0]), ([math.inf, 1.0], [2.0, 3.0]):
        assert math.isnan(welch(*sides)[1])
    assert math.isnan(welch([], [1.0, 2.0])[0])


@pytest.mark.parametrize(
    ("tried", "best", "expected"),
    [
        ([1, 2, 3], 1, "lowest"),
        ([3, 1, 2, 3], 3, "highest"),
        ([1, 2, 3], 2, None),
        ([1, 2, 2], 2, None),
        ([1], 1, None),
    ],
)
def test_an_edge_needs_three_values(tried: list[float], best: float, expected: str | None) -> None:
    assert edge(tried, best) == expected


def test_the_best_trial_has_the_lowest_mean_and_not_the_luckiest_seed(tmp_path: Path) -> None:
    runs = runs_of(
        tmp_path,
        {
            ("adamw", 0.1): [3.0, 3.2],
            ("adamw", 0.2): [2.8, 3.0],
            ("adamw", 0.4): [2.0, 4.4],
            ("muon", 0.1): [2.7, 2.8],
            ("muon", 0.2): [2.5, 2.7],
            ("muon", 0.4): [2.2, 2.4],
        },
    )
    muon, adamw = records(best_trials(trials(runs)))
    assert (muon["optimizer"], muon["lr"], muon["trials"], muon["edge"]) == (
        "muon",
        0.4,
        3,
        "highest",
    )
    assert (adamw["optimizer"], adamw["lr"], adamw["edge"]) == ("adamw", 0.2, "")
    assert (muon["n"], muon["mean"]) == (2, pytest.approx(2.3))
    # Variances .02: se^2 = .02, t = .6 / sqrt(.02), df = 2, as in the test of two pairs.
    assert muon["gap"] == pytest.approx(-0.6)
    assert muon["p"] == pytest.approx(1 - math.sqrt(18 / 20))
    assert math.isnan(adamw["gap"])
    assert math.isnan(adamw["p"])


def test_a_diverged_seed_is_the_worst_result_of_its_trial(tmp_path: Path) -> None:
    # Every run logged a validation loss of 1.5 on its way: only the end counts.
    finals = {("adamw", 0.1): [3.0, 3.0], ("adamw", 0.2): [2.0, "nan"], ("adamw", 0.4): ["nan"] * 2}
    found = trials(runs_of(tmp_path, finals)).set_index("lr")
    assert found["mean"].tolist() == [3.0, math.inf, math.inf]
    assert found["diverged"].tolist() == [0, 1, 2]
    best = records(best_trials(found.reset_index()))[0]
    assert (best["lr"], best["trials"]) == (0.1, 3)
    # Two diverged learning rates above it are no reason to look for a better one there.
    assert best["edge"] == "lowest"


def test_an_optimizer_that_always_diverged_is_listed_last_without_an_edge(tmp_path: Path) -> None:
    finals = {("sgd", lr): ["nan"] for lr in (1.0, 2.0, 3.0)} | {("adamw", 0.1): [3.0]}
    adamw, sgd = records(best_trials(trials(runs_of(tmp_path, finals))))
    assert (adamw["optimizer"], sgd["optimizer"]) == ("adamw", "sgd")
    assert (sgd["mean"], sgd["edge"]) == (math.inf, "")


def test_a_nan_of_a_completed_run_is_as_bad_as_a_divergence(tmp_path: Path) -> None:
    rows = [start_row(1, 0), eval_row(10, 1.0), eval_row(20, "nan")]
    write_run(tmp_path / "nan", configure("adamw", 0.1, 0), [rows], state="completed")
    assert trials(load(tmp_path).runs)["mean"].tolist() == [math.inf]


def test_runs_that_have_not_ended_do_not_count(sweep: Runs) -> None:
    found = trials(sweep.runs)
    failed = found[(found["optimizer"] == "adamw") & (found["lr"] == 0.008)]
    running = found[(found["optimizer"] == "muon") & (found["lr"] == 0.04)]
    for row in records(failed) + records(running):
        assert (row["n"], row["unfinished"]) == (2, 1)
    assert found["n"].sum() + found["unfinished"].sum() == len(sweep.runs)


def test_warnings_name_every_reason_to_doubt(sweep: Runs) -> None:
    text = "\n".join(warnings(sweep.runs))
    assert "sgd is not tuned: its best learning rate 3 is the highest" in text
    assert "different numbers of trials: muon 6, dap-ns-nadam 4, adamw 5, sgd 4" in text
    assert "worst result: muon at lr 0.32 (2)" in text
    assert "1 run(s) failed and are not counted: it failed." in text
    assert "Not finished, and not counted: 1 interrupted." in text
    of_the_best = [line for line in text.splitlines() if "of the best trial of" in line]
    assert all(
        line.endswith("failed, have not ended or have no validation loss.") for line in of_the_best
    )
    assert len(text.splitlines()) == 5 + len(of_the_best)


def test_a_lower_mean_of_easier_seeds_is_passed_over_and_told(tmp_path: Path) -> None:
    # Seed 0 is easy: its loss at 0.02 is below the mean at 0.01, but not below the same seed there.
    finals = {("muon", 0.01): [2.70, 2.84, 2.80], ("muon", 0.02): [2.72], ("muon", 0.04): [2.9]}
    runs = runs_of(tmp_path, finals)
    (best,) = records(best_trials(trials(runs)))
    assert (best["lr"], best["n"]) == (0.01, 3)
    said = "muon: another trial may be the best: its settings have 1 to 3 seeds and were compared"
    assert f"{said} over the seeds they share; a lower mean, 2.7200 of 1, was passed over." in (
        warnings(runs)
    )


def with_other_settings(root: Path) -> pd.DataFrame:
    """Two variants; each is best at the lowest of its rates, where the other one has lower ones."""
    finals = {False: {0.01: 2.9, 0.02: 2.8, 0.04: 2.85}, True: {0.02: 2.5, 0.04: 2.6, 0.08: 2.7}}
    rows = [start_row(1, 0)]
    for cautious, by_rate in finals.items():
        for lr, loss in by_rate.items():
            config = configure("muon", lr, 0, optimizer__optimizer_params__cautious=cautious)
            write_run(root / f"{cautious}-{lr}", config, [[*rows, eval_row(20, loss)]])
    return load(root).runs


def test_an_edge_is_that_of_the_rates_tried_with_the_same_settings(tmp_path: Path) -> None:
    (best,) = records(best_trials(trials(with_other_settings(tmp_path))))
    assert (best["lr"], best["edge"]) == (0.02, "lowest")
    assert (best["rates"], best["trials"]) == ([0.02, 0.04, 0.08], 6)
    cautious = "optimizer.optimizer_params.cautious"
    assert best["settings"] == {"optimizer.optimizer_params.lr": 0.02, cautious: True}


def test_a_variant_tried_at_one_rate_is_not_tuned(tmp_path: Path) -> None:
    runs = with_other_settings(tmp_path)
    only = runs[~runs["optimizer.optimizer_params.cautious"] | (runs["lr"] == 0.02)]
    assert [text for text in warnings(only) if "not tuned" in text] == [
        "muon is not tuned: 1 learning rate was tried with the other settings of its best trial;"
        " an optimum takes at least 3."
    ]


WD, AUX = "optimizer.optimizer_params.weight_decay", "optimizer.optimizer_params.aux.lr"


@pytest.mark.parametrize(
    ("points", "rates"),
    [
        ([(1, 0.1, 3), (2, 0.1, 6), (4, 0.1, 12), (8, 0.2, 24)], [1, 2, 4]),  # aux in one ratio
        ([(1, 0.4, 3), (2, 0.2, 3), (4, 0.1, 3)], [1, 2, 4]),  # a decay zipped with the rate
        ([(1, 0.1, 3), (2, 0.1, 3), (1, 0.1, 6), (2, 0.1, 6)], [1, 2]),  # a grid of two rates
        ([(1, 0.1, 3), (2, 0.3, 5), (1, 0.2, 4), (7, 0.1, 9)], [1, 2, 7]),  # drawn
        ([(1, 0.1, 3), (1, 0.2, 3), (2, 0.2, 3), (4, 0.2, 3)], [1]),  # decay first, then the rate
    ],
)
def test_rates_are_those_tried_with_the_other_settings(
    points: list[tuple[float, float, float]], rates: list[float]
) -> None:
    rows = [{"lr": lr, "settings": {WD: wd, AUX: aux}} for lr, wd, aux in points]
    assert rate_grid(rows, rows[0]) == rates


def test_a_further_seed_of_a_poor_trial_changes_nothing_but_the_doubts(tmp_path: Path) -> None:
    finals = {("muon", 0.01): [2.9, 3.0], ("muon", 0.02): [2.5, 2.6], ("muon", 0.04): [2.7, 2.8]}
    before = records(best_trials(trials(runs_of(tmp_path / "before", finals))))
    finals[("muon", 0.04)] = [2.7, 2.8, 1.0]
    after = records(best_trials(trials(runs_of(tmp_path / "after", finals))))
    assert [row["lr"] for row in before] == [row["lr"] for row in after] == [0.02]
    assert [bool(row["caveat"]) for row in before + after] == [False, True]


def test_other_settings_of_the_best_trials_are_told(tmp_path: Path) -> None:
    rows = [start_row(1, 0), eval_row(10, 2.0)]
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [rows])
    changed = configure("muon", 0.1, 0, training__training_params__dtype="bfloat16")
    write_run(tmp_path / "b", changed, [rows])
    assert any("different number formats: " in text for text in warnings(load(tmp_path).runs))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprints": {"data": "d2"}}, "different training data: d1 (1 runs), d2 (1 runs)"),
        ({"fingerprints": {"eval": "e2"}}, "different validation tokens"),
        ({"fingerprints": {"init_weights": "w2"}}, "same seed have different initial weights"),
        ({"fingerprints": {"data_order": "o2"}}, "same seed have different orders of the data"),
        ({"git": {"commit": "fedcba"}}, "different code versions"),
        ({"git": {"dirty": True}}, "1 of 2 runs were made by code with uncommitted changes"),
        ({"device": "cuda"}, "different devices"),
    ],
)
def test_unlike_provenance_is_a_warning(tmp_path: Path, changed: dict, message: str) -> None:
    rows = [start_row(1, 0), eval_row(10, 2.0)]
    key, value = next(iter(changed.items()))
    other = {key: PROVENANCE[key] | value if isinstance(value, dict) else value}
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [rows])
    write_run(tmp_path / "b", configure("muon", 0.1, 0), [rows], provenance=other)
    assert any(message in text for text in warnings(load(tmp_path).runs))


def test_other_seeds_may_have_other_weights_and_orders(tmp_path: Path) -> None:
    rows = [start_row(1, 0), eval_row(10, 2.0)]
    other = {
        "fingerprints": PROVENANCE["fingerprints"] | {"init_weights": "w2", "data_order": "o2"}
    }
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [rows])
    write_run(tmp_path / "b", configure("adamw", 0.1, 1), [rows], provenance=other)
    assert warnings(load(tmp_path).runs) == [
        "adamw is not tuned: 1 learning rate was tried; an optimum takes at least 3."
    ]
