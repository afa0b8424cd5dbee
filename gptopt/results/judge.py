"""Whether a claim holds, by the runs there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptopt.results.claims import Claim
from gptopt.results.compare import Comparison, compare
from gptopt.results.fairness import FEWEST_RATES, UnlikeError
from gptopt.results.runs import Runs, records
from gptopt.results.select import brief
from gptopt.results.stats import best_trials, outcome, trials

if TYPE_CHECKING:
    import pandas as pd

SAME_SPAN = 1.01
"""Factor within which two grids of rates count as equally wide."""


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim.

    Attributes:
        claim: What was judged.
        holds: None where the runs cannot tell.
        figures: What it rests on, in words.
        doubts: Reasons not to believe it.
        there: Runs of the claim that have ended, of ``claim.size``.
        p: One-sided p-value that the claim is false; NaN for a kind without a test.
    """

    claim: Claim
    holds: bool | None
    figures: str
    doubts: list[str]
    there: int
    p: float = math.nan

    @property
    def is_missing_runs(self) -> bool:
        """Whether it is too early to tell."""
        return self.there < self.claim.size

    @property
    def is_as_recorded(self) -> bool:
        """Whether there is a verdict, and it is the one on record."""
        return self.holds is not None and self.holds == self.claim.holds

    def lines(self) -> list[str]:
        """The verdict for people."""
        if self.is_missing_runs:
            verdict = f"not yet: {self.there} of {self.claim.size} runs"
        elif self.holds is None:
            verdict = "cannot be judged"
        else:
            verdict = "holds" if self.holds else "does not hold"
            if self.claim.holds is None:
                verdict += f" (not on record: set holds: {str(self.holds).lower()})"
            elif not self.is_as_recorded:
                verdict += ", AGAINST THE RECORD"
        lines = [f"{self.claim.name}: {verdict}", f"  {self.claim.text}"]
        if self.is_missing_runs:
            lines.append(f"  run it: gptopt sweep submit {self.claim.sweep}")
        lines += [f"  {line}" for line in self.figures.splitlines()]
        return [*lines, *(f"  ! {doubt}" for doubt in self.doubts)]


Outcome = tuple[bool | None, str, float]


def judge(claim: Claim, runs: Runs) -> Verdict:
    """Judges ``claim`` by ``runs``."""
    if runs.runs.empty:
        return Verdict(claim, None, "", [], 0)
    try:
        among = runs.only(claim.among.mark(runs.runs))
        sides = [among.only(side.mark(among.runs)) for side in claim.sides]
    except ValueError as error:  # a setting that only runs to come have, or a misspelt one
        return Verdict(claim, None, str(error), [], 0)
    there = sum(_there(side.runs, claim) for side in sides)
    if there < claim.size:
        return Verdict(claim, None, "", [], there)
    if len(sides) == 1:
        holds, figures, p = _interior(sides[0])
        return Verdict(claim, holds, figures, [], there, p)
    names = [side.text for side in claim.sides]
    compared = {column for side in claim.sides for column in side.columns(among.runs).values()}
    try:
        found = compare(
            (names[0], sides[0]), (names[1], sides[1]), compared=compared, target=None, cost="step"
        )
        holds, figures, p = _JUDGES[claim.kind](claim, found)
    except ValueError as error:  # such as an UnlikeError, or sides that share runs
        return Verdict(claim, None, str(error), [], there)
    return Verdict(claim, holds, figures, found.doubts, there, p)


def _there(runs: pd.DataFrame, claim: Claim) -> int:
    """Runs that count towards the claim: of its best-filled rates, up to its seeds each."""
    ended = runs[outcome(runs).notna()].groupby(["lr", "trial"])["seed"].nunique()
    per_rate = ended.groupby("lr").max().clip(upper=claim.seeds)
    return int(per_rate.nlargest(claim.rates).sum())


def _margin(claim: Claim, found: Comparison) -> Outcome:
    """The better side ends ``margin`` or more below the other, which is tuned."""
    margin = claim.given["margin"]
    p, words = _shifted(found.a.losses, found.b.losses, margin, claim.given["test"])
    holds = _is_below(p, claim)
    if edge := found.b.best["edge"]:
        words += f"\n{found.b.name} is not tuned: its best rate is the {edge} tried"
        holds = False
    means = (
        f"{side.name} {side.best['mean']:.4f} (lr {brief(side.best['lr'])})"
        for side in (found.a, found.b)
    )
    return holds, f"{', '.join(means)}; {words}", p


def _excess(claim: Claim, found: Comparison) -> Outcome:
    """Over grids of one span, the mean excess over the own best loss is ``margin`` lower."""
    tables = [_by_rate(side.runs.runs, claim.seeds) for side in (found.a, found.b)]
    a, b = (_excesses(table, claim.given["ceiling"]) for table in tables)
    rates = [table.columns.to_numpy(dtype=float) for table in tables]
    spans = [float(tried.max() / tried.min()) for tried in rates]
    counts = [len(tried) for tried in rates]
    if max(spans) > SAME_SPAN * min(spans) or counts[0] != counts[1]:
        raise UnlikeError(
            f"the grids of learning rates differ: {counts[0]} rates over a factor of"
            f" {spans[0]:g}, and {counts[1]} over {spans[1]:g}."
        )
    p, words = _shifted(a, b, claim.given["margin"], claim.given["test"])
    means = (f"{side.name} {_mean(values):.4f}" for side, values in ((found.a, a), (found.b, b)))
    return _is_below(p, claim), f"mean excess: {', '.join(means)}; {words}", p


def _by_rate(runs: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """Losses with a row per seed and a column per learning rate that has that many seeds."""
    if (runs.groupby("lr")["trial"].nunique() > 1).any():
        raise UnlikeError("a learning rate was run with several other settings: choose one.")
    table = runs.assign(loss=outcome(runs)).pivot_table(
        index="seed", columns="lr", values="loss", aggfunc="first"
    )
    return table.loc[:, table.count() >= seeds]


def _excesses(table: pd.DataFrame, ceiling: float) -> dict[int, float]:
    """Mean excess over the best rate, by seed, of the seeds that every rate has."""
    from gptopt.results.stats.tuning import sensitivity

    complete = table.dropna()
    seeds = complete.index.astype(int).tolist()
    return {
        seed: sensitivity(row, ceiling=ceiling)
        for seed, row in zip(seeds, complete.to_numpy().tolist(), strict=True)
    }


def _steps(claim: Claim, found: Comparison) -> Outcome:
    """The better side needs at most ``ratio`` of the steps, also at the unlucky ends."""
    a, b = found.spent
    figures = f"steps to {found.target:.4f}: {found.a.name} {a}, {found.b.name} {b}"
    if not math.isfinite(found.target) or math.isinf(b.low):
        return None, f"{figures}\ncannot tell: {found.b.name} itself does not get there", math.nan
    return a.high <= claim.given["ratio"] * b.low, figures, math.nan


def _interior(side: Runs) -> Outcome:
    """The best learning rate is neither the lowest nor the highest tried."""
    named = side.runs.assign(optimizer="", workload="")
    best = records(best_trials(trials(named)))[0]
    edge, count = best["edge"], len(best["rates"])
    figures = f"best of {count} learning rates: {brief(best['lr'])}, {best['mean']:.4f}"
    if count < FEWEST_RATES or not math.isfinite(best["mean"]):
        why = "every run diverged" if count >= FEWEST_RATES else "too few rates have an inside"
        return None, f"{figures}\ncannot tell: {why}", math.nan
    return not edge, figures + (f", the {edge} tried" if edge else ""), math.nan


_JUDGES: Mapping[str, Callable[[Claim, Comparison], Outcome]] = {
    "margin": _margin,
    "excess": _excess,
    "steps": _steps,
}


def _shifted(
    a: Mapping[int, float], b: Mapping[int, float], margin: float, test: str
) -> tuple[float, str]:
    """One-sided p-value that a + margin is not below b; NaN without a spread. And the words."""
    from gptopt.results.stats.significance import difference, paired_difference

    raised = {seed: value + margin for seed, value in a.items()}
    if test == "paired":
        found = paired_difference(raised, b)
    else:
        found = difference(list(raised.values()), list(b.values()))
    p = found.p / 2 if found.gap < 0 else 1 - found.p / 2
    if math.isnan(p):
        return p, f"{margin - found.gap:.4f} below\ncannot tell: {_why_no_p(a, b, test)}"
    return p, (
        f"{margin - found.gap:.4f} below ({margin - found.high:.4f} to {margin - found.low:.4f}),"
        f" {margin:g} claimed, p = {p:.2g} ({test})"
    )


def _is_below(p: float, claim: Claim) -> bool | None:
    """Whether the test is passed; None where there is none."""
    return None if math.isnan(p) else bool(p < claim.given["alpha"])


def _why_no_p(a: Mapping[int, float], b: Mapping[int, float], test: str) -> str:
    if any(math.isinf(value) for side in (a, b) for value in side.values()):
        return "a seed diverged, and its loss is no number"
    if test == "paired" and len(a.keys() & b.keys()) < 2:
        return f"{len(a.keys() & b.keys())} seed(s) in common, and a paired test takes two"
    if min(len(a), len(b)) < 2:
        return "one seed on a side has no spread"
    return "the seeds have no spread"


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan
