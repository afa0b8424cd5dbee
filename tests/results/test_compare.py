from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from gptopt import layout
from gptopt.results import Runs, load
from gptopt.results.compare import Comparison, compare, seeds_to_settle
from gptopt.results.fairness import UnlikeError, warnings
from gptopt.results.select import Selection

from .rivals import ADAMW, MUON, write_both, write_rival


def judged(found: Runs, a: str = "optimizer=muon", b: str = "optimizer=adamw") -> Comparison:
    one, other = Selection.parse(a), Selection.parse(b)
    columns = {*one.columns(found.runs).values(), *other.columns(found.runs).values()}
    return compare(
        (a, one.of(found)), (b, other.of(found)), compared=columns, target=None, cost="step"
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return load(write_both(tmp_path_factory.mktemp("both")))


def test_the_best_trials_are_compared_by_the_tests_of_scipy(found: Runs) -> None:
    comparison = judged(found)
    muon, adamw = MUON[0.02], ADAMW[0.002]
    assert comparison.welch.gap == pytest.approx(2.05 - (2.25 + 2.26 + 2.28) / 3)
    assert comparison.welch.p == pytest.approx(stats.ttest_ind(muon, adamw, equal_var=False).pvalue)
    assert comparison.paired.p == pytest.approx(stats.ttest_rel(muon, adamw).pvalue)
    assert comparison.doubts == []
    mean, sd = statistics.mean(adamw), statistics.stdev(adamw)
    assert f"{mean:.4f} ± {sd:.4f} (sd) nats per token, n = 3" in "\n".join(comparison.lines())


def test_speed_is_measured_to_the_loss_that_all_seeds_of_the_worse_side_reach(found: Runs) -> None:
    comparison = judged(found)
    # From 5.5 straight to the final loss in 200 steps: Muon's middle seed, 2.05, passes 2.28 after
    # 200 * 3.22 / 3.45 steps; at 2.9, it and AdamW's, 2.26, have come 2.6 of the way.
    muon, adamw = (200 * 2.6 / (5.5 - final) for final in (2.05, 2.26))
    assert comparison.target == 2.28
    assert comparison.spent[0].value == pytest.approx(200 * 3.22 / 3.45)
    assert "A 186.7 (range 186.1 to 187.2), B" in "\n".join(comparison.lines())
    sides = [(s.name, s.runs) for s in (comparison.a, comparison.b)]
    earlier = compare(sides[0], sides[1], compared=(), target=2.9, cost="tokens")
    spent = [side.value for side in earlier.spent]
    assert spent == pytest.approx([muon * 1024, adamw * 1024])
    assert earlier.ratio == pytest.approx(muon / adamw)


def test_an_open_comparison_says_how_many_seeds_would_settle_it(tmp_path: Path) -> None:
    write_rival(tmp_path, "muon", {0.01: [2.20], 0.02: [2.00, 2.02, 2.04], 0.04: [2.3]})
    write_rival(tmp_path, "adamw", {0.001: [2.20], 0.002: [2.01, 2.03, 2.05], 0.004: [2.3]})
    lines = judged(load(tmp_path)).lines()
    # sd .02, gap .01: 2 * 4 * (1.960 + 0.842)^2 = 62.8 with a known sd; Student's t takes
    # about 1.960^2 / 4 = 1.0 more (Guenther 1981).
    assert any("64 seeds a side" in line for line in lines)


def test_one_seed_a_side_is_no_evidence(tmp_path: Path) -> None:
    write_rival(tmp_path, "muon", {0.01: [2.2], 0.02: [2.0], 0.04: [2.3]})
    write_rival(tmp_path, "adamw", {0.001: [2.4], 0.002: [2.3], 0.004: [2.5]})
    comparison = judged(load(tmp_path))
    assert math.isnan(comparison.welch.p)
    assert "Not settled, and the spread between seeds is unknown" in "\n".join(comparison.lines())


@pytest.mark.parametrize(
    ("of_muon", "said"),
    [
        ({"fingerprints": {"eval": "e2"}}, "different validation tokens: e2 and e1"),
        ({"fingerprints": {"data": "d2"}}, "different training data: d2 and d1"),
        ({"fingerprints": {"init_weights": "w9"}}, "same seed have different initial weights"),
        ({"fingerprints": {"data_order": "o9"}}, "same seed have different orders of the data"),
        (
            {"training__training_params__max_steps": 400},
            "derived.total_tokens is 409600 and 204800",
        ),
        ({"model__config__n_layer": 3}, "model.config.n_layer is 3 and 2"),
    ],
)
def test_what_makes_losses_incomparable_is_refused_and_named(
    tmp_path: Path, of_muon: dict[str, Any], said: str
) -> None:
    write_both(tmp_path, **of_muon)
    with pytest.raises(UnlikeError, match=said):
        judged(load(tmp_path))


def test_other_differences_are_told_and_those_of_the_conditions_are_meant(tmp_path: Path) -> None:
    write_both(tmp_path, lr_scheduler__name="cosine")
    found = load(tmp_path)
    said = "The best trials differ in lr_scheduler.name: cosine and wsd."
    assert said in judged(found).doubts
    named = judged(found, "optimizer=muon,lr_scheduler.name=cosine")
    assert said not in named.doubts


def test_other_code_of_the_same_plugin_is_told(tmp_path: Path) -> None:
    for digest, losses in (("a" * 64, MUON), ("b" * 64, ADAMW)):
        for run in write_rival(tmp_path, "nsgd", losses):
            known = json.loads((run / layout.PROVENANCE).read_text())
            known["optimizer_code"] = {"file": "/x/nsgd.py", "sha256": digest}
            (run / layout.PROVENANCE).write_text(json.dumps(known))
    comparison = judged(load(tmp_path), "lr=0.01|0.02|0.04", "lr=0.001|0.002|0.004")
    told = [doubt for doubt in comparison.doubts if "plugin files" in doubt]
    assert len(told) == 1
    assert told[0].startswith("Runs of nsgd have different plugin files: ")
    assert all(f"{text * 64} (9 runs)" in told[0] for text in "ab")


def test_two_plugins_have_files_of_their_own(tmp_path: Path) -> None:
    write_both(tmp_path)
    for file in tmp_path.glob(f"*/{layout.PROVENANCE}"):
        code = {"sha256": "a" if "muon" in file.parent.name else "b"}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"optimizer_code": code}))
    assert judged(load(tmp_path)).doubts == []


def test_unequal_tuning_and_an_optimum_at_the_edge_are_told(tmp_path: Path) -> None:
    write_rival(tmp_path, "muon", MUON)
    write_rival(tmp_path, "adamw", {0.001: [2.33, 2.34], 0.002: [2.25, 2.26]})
    write_rival(tmp_path, "adamw", {0.0005: [2.4, 2.41], 0.0001: [2.5, 2.51]})
    doubts = "\n".join(judged(load(tmp_path)).doubts)
    assert "B is not tuned: its best learning rate 0.002 is the highest" in doubts
    assert "different numbers of trials: A 3, B 4" in doubts
    assert "different numbers of seeds at their best trial: A 3, B 2" in doubts


def test_a_diverged_seed_is_the_worst_and_no_number(tmp_path: Path) -> None:
    write_rival(tmp_path, "adamw", ADAMW)
    write_rival(tmp_path, "muon", MUON, state="diverged")
    comparison = judged(load(tmp_path))
    assert comparison.welch.gap == math.inf
    assert comparison.rank_p == pytest.approx(
        stats.mannwhitneyu([math.inf] * 3, ADAMW[0.002]).pvalue
    )


def test_the_winner_of_each_side_is_told_with_what_varied_there(tmp_path: Path) -> None:
    key = "optimizer.optimizer_params.aux_wd"
    write_rival(tmp_path, "muon", MUON, optimizer__optimizer_params__aux_wd=0.1)
    write_rival(tmp_path, "muon", {0.02: [2.5, 2.6]}, optimizer__optimizer_params__aux_wd=0.0)
    adamw = {0.002: [2.25, 2.26, 2.28]}
    write_rival(tmp_path, "adamw", adamw, optimizer__optimizer_params__aux_wd=0.1)
    comparison = judged(load(tmp_path))
    a, of_a, b, of_b = comparison.lines()[:4]
    assert a.endswith("n = 3; best of 4 trials, 3 rates with its other settings")
    assert of_a == "   muon: lr=0.02, aux_wd=0.1"
    assert b.endswith("best of 1 trial, 1 rate with its other settings")
    assert of_b == "   adamw: lr=0.002"
    assert "p = <" not in "\n".join(comparison.lines())
    assert f"Tuning differs in {key}: A tried 2 values, B kept 0.1." in comparison.doubts


def test_a_second_rate_tied_on_one_side_alone_is_told(tmp_path: Path) -> None:
    for lr, losses in MUON.items():
        write_rival(tmp_path, "muon", {lr: losses}, optimizer__optimizer_params__aux_lr=lr / 10)
    write_rival(tmp_path, "soap", ADAMW, optimizer__optimizer_params__aux_lr=0.001)
    write_rival(tmp_path, "adamw", ADAMW)
    found = load(tmp_path)
    key = "optimizer.optimizer_params.aux_lr"
    tied = f"Tuning differs in {key}: A tried 3 values along with lr, B"
    assert f"{tied} kept 0.001." in judged(found, b="optimizer=soap").doubts
    assert f"{tied} has none." in judged(found).doubts
    assert not [text for text in judged(found, "optimizer=soap").doubts if "Tuning" in text]
    write_rival(tmp_path, "sgd", ADAMW)
    (told,) = [text for text in warnings(load(tmp_path).runs) if key in text]
    assert told.startswith(f"Tuning differs in {key}: ")
    assert told.endswith(", the others have none.")
    assert "soap kept 0.001" in told


def test_a_run_is_no_rival_of_itself(found: Runs) -> None:
    with pytest.raises(ValueError, match="share 9 runs"):
        judged(found, "optimizer=muon", "optimizer=muon|adamw")


def test_no_spread_and_no_gap_settle_nothing() -> None:
    row = {"mean": 2.0, "sd": 0.01}
    assert seeds_to_settle(row, row) == 1001
    assert seeds_to_settle({"mean": 2.0, "sd": math.nan}, {"mean": 2.1, "sd": math.nan}) is None


# --- selections ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("optimizer=muon", 9),
        ("optimizer=muon|adamw", 18),
        ("optimizer=muon, lr=2e-2", 3),
        ("seed=0|2", 12),
        ("n_layer=2", 18),
        ("init_from=null", 18),
        ("git.dirty=false", 18),
    ],
)
def test_conditions_choose_runs(found: Runs, text: str, count: int) -> None:
    assert len(Selection.parse(text).of(found).runs) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer=mun", r"no run has optimizer=mun. Did you mean 'muon'\? .* adamw, muon"),
        ("optimzer=muon", "No run has a setting 'optimzer'. Did you mean 'optimizer'"),
        ("optimizer=muon,lr=0.002", "no run fulfils all of it together"),
    ],
)
def test_what_chooses_nothing_says_what_there_is(found: Runs, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Selection.parse(text).of(found)


@pytest.mark.parametrize("text", ["muon", "a=1,,b=2", "=3", "lr=", "lr=1,lr=2"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no condition"):
        Selection.parse(text)
