from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from scipy import stats

from gptopt import layout
from gptopt.cli import main
from gptopt.config.problems import ConfigError
from gptopt.results import load
from gptopt.results.claims import CLAIMS, find, read_claims
from gptopt.results.judge import Verdict, judge
from gptopt.sweep.plan import plan

from .rivals import ADAMW, MUON, write_both, write_rival

CLAIM: dict[str, Any] = {
    "claim": "muon ends at least 0.1 nats below adamw.",
    "sweep": "params/muon.json",
    "among": "model=gpt-tiny",
    "kind": "margin",
    "better": "optimizer=muon",
    "worse": "optimizer=adamw",
    "margin": 0.1,
    "test": "welch",
    "alpha": 0.01,
    "rates": 3,
    "seeds": 3,
    "holds": True,
}
STEPS = {key: CLAIM[key] for key in CLAIM if key not in ("margin", "test", "alpha")} | {
    "kind": "steps",
    "ratio": 1.0,
}


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Verdict]:
    """The verdict on ``CLAIM`` with these changes by the runs below a directory."""

    def judged(runs: Path, claim: dict[str, Any] = CLAIM, **changes: Any) -> Verdict:
        file = tmp_path / "a-claim.yaml"
        file.write_text(yaml.safe_dump(claim | changes))
        return judge(read_claims([file])[0], load(runs))

    return judged


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_both(tmp_path_factory.mktemp("runs"))


def test_a_margin_holds_up_to_what_the_test_supports(
    runs: Path, judged: Callable[..., Verdict]
) -> None:
    # means 2.05 and 2.2633, standard errors 0.0058 and 0.0088: t = (0.2133 - margin) / 0.0105
    verdict = judged(runs)
    assert verdict.holds
    assert verdict.is_as_recorded
    raised = [loss + 0.1 for loss in MUON[0.02]]
    p = stats.ttest_ind(raised, ADAMW[0.002], alternative="less", equal_var=False).pvalue
    assert verdict.p == pytest.approx(p)
    assert "0.2133 below" in verdict.figures
    assert not judged(runs, margin=0.21).holds
    assert not judged(runs, margin=0.3).holds


def test_an_untuned_baseline_supports_no_claim(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    write_rival(tmp_path / "runs", "muon", MUON)
    falling = {0.001: ADAMW[0.004], 0.002: ADAMW[0.001], 0.004: ADAMW[0.002]}
    write_rival(tmp_path / "runs", "adamw", falling)
    verdict = judged(tmp_path / "runs")
    assert verdict.holds is False
    assert "optimizer=adamw is not tuned: its best rate is the highest tried" in verdict.figures


def test_missing_runs_are_counted_and_no_verdict(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    write_rival(tmp_path / "runs", "muon", MUON)
    write_rival(tmp_path / "runs", "adamw", {0.001: [2.33, 2.34], 0.002: [2.25, 2.26, 2.28]})
    verdict = judged(tmp_path / "runs")
    assert (verdict.holds, verdict.there) == (None, 9 + 5)
    assert verdict.lines()[0] == "a-claim: not yet: 14 of 18 runs"
    assert "  run it: gptopt sweep submit params/muon.json" in verdict.lines()
    assert judged(tmp_path / "nothing").lines()[0] == "a-claim: not yet: 0 of 18 runs"


def test_a_setting_that_no_run_has_yet_is_no_mistake(
    runs: Path, judged: Callable[..., Verdict]
) -> None:
    verdict = judged(runs, better="optimizer=dap-ns-nadam,orthogonalize=true")
    assert verdict.is_missing_runs
    assert "No run has a setting 'orthogonalize'" in verdict.figures


def test_runs_that_are_unlike_cannot_support_a_claim(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    write_both(tmp_path / "runs", fingerprints={"eval": "other tokens"})
    verdict = judged(tmp_path / "runs")
    assert verdict.holds is None
    assert not verdict.is_as_recorded
    assert "different validation tokens" in verdict.figures


def test_steps_are_compared_at_the_unlucky_ends(
    tmp_path: Path, runs: Path, judged: Callable[..., Verdict]
) -> None:
    # Straight from 5.5, muon's slowest seed passes 2.28 after 200 * 3.22 / 3.44 = 187.2 steps;
    # AdamW's fastest one, which ends at 2.25, after 200 * 3.22 / 3.25 = 198.2: a ratio of 0.945.
    assert judged(runs, STEPS, ratio=0.95).holds
    assert judged(runs, STEPS, ratio=0.94).holds is False
    # Now muon's seeds pass 2.4 at 155, 177 and 186.2 of AdamW's 200 steps: the median is 0.886,
    # the unlucky end 0.931.
    spread = {0.01: [2.3] * 3, 0.02: [1.5, 2.0, 2.17], 0.04: [2.4] * 3}
    write_rival(tmp_path / "spread", "muon", spread)
    write_rival(tmp_path / "spread", "adamw", dict.fromkeys((1.0, 1.5, 2.0), [2.4] * 3))
    assert judged(tmp_path / "spread", STEPS, ratio=0.94).holds
    assert judged(tmp_path / "spread", STEPS, ratio=0.92).holds is False


def test_an_interior_optimum(tmp_path: Path, judged: Callable[..., Verdict]) -> None:
    claim = {key: CLAIM[key] for key in ("claim", "sweep", "among", "rates", "seeds", "holds")}
    claim |= {"kind": "interior", "of": "optimizer=sgd"}
    write_rival(tmp_path / "in", "sgd", MUON)
    write_rival(tmp_path / "edge", "sgd", dict.fromkeys((1, 2), MUON[0.02]) | {4: [1.0] * 3})
    assert judged(tmp_path / "in", claim).holds
    assert judged(tmp_path / "edge", claim).holds is False


def test_the_mean_excess_over_grids_of_one_span(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    sides = {"better": "optimizer=muon", "worse": "optimizer=adamw"}
    claim = CLAIM | sides | {"kind": "excess", "ceiling": 5.0, "margin": 0.02, "alpha": 0.05}
    write_both(tmp_path / "runs")
    # Means over three rates less the lowest, by seed.
    muon = [((a + b + c) / 3 - min(a, b, c)) for a, b, c in zip(*MUON.values(), strict=True)]
    adamw = [((a + b + c) / 3 - min(a, b, c)) for a, b, c in zip(*ADAMW.values(), strict=True)]
    gap = (sum(adamw) - sum(muon)) / 3
    verdict = judged(tmp_path / "runs", claim)
    assert f"{gap:.4f} below" in verdict.figures
    assert judged(tmp_path / "runs", claim, margin=gap + 0.01).holds is False
    write_rival(tmp_path / "runs", "muon", {0.08: [9.0]})  # a look beyond, without its seeds
    assert f"{gap:.4f} below" in judged(tmp_path / "runs", claim).figures
    write_rival(tmp_path / "wide", "muon", MUON)
    write_rival(tmp_path / "wide", "adamw", dict(zip((1, 3, 9), ADAMW.values(), strict=True)))
    assert "factor of 4, and 3 over 9" in judged(tmp_path / "wide", claim).figures


# --- the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margn": 0.1}, r"there is no key 'margn'\. Did you mean 'margin'\?"),
        ({"alpha": 5}, "alpha=5: it takes a number between 0 and 1"),
        ({"seeds": 2.5}, "seeds=2.5: it takes a whole number above 0"),
        ({"holds": "yes"}, "holds='yes': it takes true, false, or null"),
        ({"kind": "marign"}, r"kind='marign': it takes one of .* Did you mean 'margin'\?"),
        ({"better": "muon"}, "'muon' is no condition"),
        ({"test": "t"}, "test='t': it takes one of welch, paired"),
    ],
)
def test_a_wrong_claim_is_refused_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(CLAIM | changes))
    with pytest.raises(ConfigError, match=rf"wrong\.yaml: (.|\n)*{said}"):
        read_claims([file])


def test_all_that_is_wrong_comes_in_one_report(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({k: CLAIM[k] for k in CLAIM if k != "test"}))
    (tmp_path / "two.yaml").write_text("- a list")
    (tmp_path / "three.yaml").write_text("a: [")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError) as caught:
        read_claims(files)
    assert {Path(problem.where).stem for problem in caught.value.problems} == {
        "one",
        "two",
        "three",
    }
    assert "the key 'test' is missing: one of welch, paired" in str(caught.value)


def test_every_shipped_claim_has_a_sweep_with_the_runs_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(layout.PROJECT)
    plans: dict[str, list[list[str]]] = {}
    for claim in read_claims(find([])):
        if claim.sweep not in plans:
            found = plan(Path(claim.sweep), [], max_runs=1000)
            plans[claim.sweep] = [run.overrides for run in found.runs]
        runs = plans[claim.sweep]
        for side in claim.sides:
            mine = [run for run in runs if _agrees(run, side.wanted)]
            rates = {text for run in mine for text in run if "optimizer_params.lr=" in text}
            assert len(mine) >= claim.rates * claim.seeds, claim.name
            assert len(rates) >= claim.rates, claim.name


def _agrees(overrides: list[str], wanted: dict[str, tuple[str, ...]]) -> bool:
    typed = dict(text.replace("'", "").split("=", 1) for text in overrides)
    short = {key.rsplit(".", 1)[-1]: value for key, value in typed.items()}
    return all(short.get(key) in values for key, values in wanted.items())


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs ``gptopt results check`` where ``CLAIM`` is the only claim."""
    monkeypatch.chdir(tmp_path)
    CLAIMS.mkdir(parents=True)
    (CLAIMS / "a-claim.yaml").write_text(yaml.safe_dump(CLAIM))

    def check(*arguments: str) -> tuple[int, str]:
        answer = CliRunner().invoke(main, ["results", "check", *arguments])
        return answer.exit_code, answer.output

    return check


def test_check_finds_that_a_claim_still_holds_and_that_an_edited_curve_breaks_it(
    tmp_path: Path, runs: Path, check: Callable[..., tuple[int, str]]
) -> None:
    shutil.copytree(runs, tmp_path / "outputs")
    code, said = check()
    assert code == 0, said
    assert said.startswith("a-claim: holds\n")
    for run in (tmp_path / "outputs").glob("muon-*"):
        file = layout.metrics_file(run, 1)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            if "val_loss" in row:
                row["val_loss"] += 0.12
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said = check("a-claim")
    assert code == 1
    assert said.startswith("a-claim: does not hold, AGAINST THE RECORD\n")
    (CLAIMS / "a-claim.yaml").write_text(yaml.safe_dump(CLAIM | {"holds": False}))
    assert check()[0] == 0


def test_check_fails_when_fingerprints_differ(
    tmp_path: Path, check: Callable[..., tuple[int, str]]
) -> None:
    write_both(tmp_path / "elsewhere", fingerprints={"init_weights": "w7"})
    code, said = check("--runs", "elsewhere")
    assert code == 1
    assert "a-claim: cannot be judged" in said
    assert "same seed have different initial weights" in said


def test_check_asks_for_missing_runs_and_for_a_record(
    tmp_path: Path, runs: Path, check: Callable[..., tuple[int, str]]
) -> None:
    code, said = check()
    assert (code, said.splitlines()[0]) == (75, "a-claim: not yet: 0 of 18 runs")
    (CLAIMS / "a-claim.yaml").write_text(yaml.safe_dump(CLAIM | {"holds": None}))
    code, said = check("--runs", str(runs))
    assert code == 1
    assert "holds (not on record: set holds: true)" in said


def test_an_unknown_claim_is_answered_with_the_nearest(
    check: Callable[..., tuple[int, str]],
) -> None:
    code, said = check("a-clam")
    assert code == 2
    assert "Did you mean 'a-claim'?" in said


@pytest.mark.parametrize(
    ("muon", "adamw", "test", "why"),
    [
        ([2.05] * 3, [2.25] * 3, "welch", "the seeds have no spread"),
        ([2.05], [2.25, 2.26, 2.27], "welch", "one seed on a side has no spread"),
        ([2.05], [2.25, 2.26, 2.27], "paired", "1 seed(s) in common, and a paired test takes two"),
    ],
)
def test_without_a_p_there_is_no_verdict_and_check_fails(
    tmp_path: Path,
    check: Callable[..., tuple[int, str]],
    muon: list[float],
    adamw: list[float],
    test: str,
    why: str,
) -> None:
    write_rival(tmp_path / "runs", "muon", {lr: [loss + 0.1 for loss in muon] for lr in (1, 4)})
    write_rival(tmp_path / "runs", "muon", {2: muon})
    write_rival(tmp_path / "runs", "adamw", {lr: [loss + 0.1 for loss in adamw] for lr in (1, 4)})
    write_rival(tmp_path / "runs", "adamw", {2: adamw})
    claim = CLAIM | {"test": test, "seeds": len(muon)}
    for on_record in (True, False, None):
        (CLAIMS / "a-claim.yaml").write_text(yaml.safe_dump(claim | {"holds": on_record}))
        code, said = check("--runs", "runs")
        assert code == 1
        assert said.startswith("a-claim: cannot be judged\n")
        assert f"cannot tell: {why}" in said


def test_a_diverged_seed_of_the_worse_side_proves_nothing(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    write_rival(tmp_path / "runs", "muon", MUON)
    write_rival(tmp_path / "runs", "adamw", ADAMW, state="diverged")
    verdict = judged(tmp_path / "runs")
    assert (verdict.holds, math.isnan(verdict.p)) == (None, True)
    assert "cannot tell: a seed diverged, and its loss is no number" in verdict.figures
    steps = judged(tmp_path / "runs", STEPS)
    assert steps.holds is None
    assert "cannot tell: optimizer=adamw itself does not get there" in steps.figures


def test_an_interior_takes_three_rates_and_a_run_that_ended_well(
    tmp_path: Path, judged: Callable[..., Verdict]
) -> None:
    claim = {key: CLAIM[key] for key in ("claim", "sweep", "among", "seeds", "holds")}
    claim |= {"kind": "interior", "of": "optimizer=sgd", "rates": 2}
    write_rival(tmp_path / "two", "sgd", {1: [2.0] * 3, 2: [2.1] * 3})
    write_rival(tmp_path / "lost", "sgd", MUON, state="diverged")
    assert judged(tmp_path / "two", claim).holds is None
    lost = judged(tmp_path / "lost", claim)
    assert lost.holds is None
    assert "cannot tell: every run diverged" in lost.figures
