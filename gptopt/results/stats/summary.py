"""What the runs of a sweep say: means over seeds, best settings, gaps to the baseline.

A trial is one setting of the hyperparameters, run with one or several seeds. It is judged
by the validation loss at the end of its runs (nats per token): choosing the best moment of
each run would reward noise. A diverged run is a result, the worst one: its loss is infinite.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from gptopt.ranking import caveat, comparable_means
from gptopt.results.runs import records, settings_of
from gptopt.results.stats.grids import rate_grid

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
BASELINE = "adamw"


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` independent runs, their standard deviation, and an interval."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean, standard deviation (n - 1) and the 95 % interval of the mean by Student's t.

    Whatever fewer than two values, or an infinite one, cannot tell is NaN.
    """
    n = len(values)
    mean = statistics.fmean(values) if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return Mean(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit

    sd = statistics.stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return Mean(n, mean, sd, mean - half, mean + half)


def welch(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Compares two means without assuming equal variances (Welch 1947).

    Returns:
        mean(values) - mean(reference), and the two-sided p-value of no difference: NaN
        with fewer than two values on a side or no spread at all.
    """
    if not values or not reference:
        return math.nan, math.nan
    gap = statistics.fmean(values) - statistics.fmean(reference)
    if min(len(values), len(reference)) < 2 or not math.isfinite(gap):
        return gap, math.nan
    errors = [statistics.variance(side) / len(side) for side in (values, reference)]
    if sum(errors) == 0:
        return gap, math.nan
    from scipy.special import stdtr

    freedoms = [len(side) - 1 for side in (values, reference)]
    freedom = sum(errors) ** 2 / sum(e**2 / f for e, f in zip(errors, freedoms, strict=True))
    return gap, 2 * float(stdtr(freedom, -abs(gap) / math.sqrt(sum(errors))))


def edge(values: Iterable[float], best: float) -> Literal["lowest", "highest"] | None:
    """Which end of three or more tried values the best one is; a tuned value is at neither."""
    tried = sorted(set(values))
    if len(tried) < 3 or best not in (tried[0], tried[-1]):
        return None
    return "lowest" if best == tried[0] else "highest"


def outcome(runs: pd.DataFrame) -> pd.Series:
    """The loss each run counts with: NaN while it has none, infinite when it diverged."""
    finished = runs["final_val_loss"].where(runs["state"] == "completed")
    return finished.mask(runs["state"] == "diverged", math.inf)


def seeds_of(runs: pd.DataFrame) -> pd.Series:
    """What is the same for runs of the same seed: (seed, seed of the data).

    A run of an unknown seed shares it with none, and a further one of the same trial and seed, as
    imported runs may be, with the further ones of other trials: (seed, seed of the data, 1).
    """
    import pandas as pd

    data = runs.get("derived.data_seed", runs["seed"]).fillna(runs["seed"])
    again = runs.assign(of_data=data).groupby(["trial", "seed", "of_data"], dropna=False).cumcount()
    rows = zip(runs["seed"], data, again, runs["run_id"], strict=True)
    keys: list[tuple[Any, ...]] = [
        (seed, of_data, *([nth] if nth else [])) if seed == seed else (run_id,)
        for seed, of_data, nth, run_id in rows
    ]
    return pd.Series(keys, index=runs.index, dtype=object)


def trials(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per setting of the hyperparameters.

    Args:
        runs: Rows of ``Runs.runs``.

    Returns:
        workload, optimizer, trial, lr, settings (what varied within the optimizer, by column),
        losses (one per run that ended, see ``outcome``), seeds
        (of these, see ``seeds_of``), diverged (how many of them), unfinished (runs that did not
        count), and the fields of ``Mean``. Runs that differ in nothing but their seeds share a row.
    """
    import pandas as pd

    rows = []
    keys = ["workload", "optimizer", "lr", "trial"]
    settings = settings_of(runs)
    known = runs[keys].assign(loss=outcome(runs), seed=seeds_of(runs))
    listed = known.groupby(keys, dropna=False)[["loss", "seed"]].agg(list)
    for row in records(listed.reset_index()):
        all_losses, all_seeds = row.pop("loss"), row.pop("seed")
        pairs = zip(all_losses, all_seeds, strict=True)
        ended = [(loss, seed) for loss, seed in pairs if not math.isnan(loss)]
        losses = [loss for loss, _ in ended]
        rows.append(
            {
                **row,
                "settings": settings[row["workload"], row["optimizer"], row["trial"]],
                "losses": losses,
                "seeds": [seed for _, seed in ended],
                "diverged": losses.count(math.inf),
                "unfinished": len(all_losses) - len(losses),
                **asdict(mean_interval(losses)),
            }
        )
    means = [field.name for field in fields(Mean)]
    columns = [*keys, "settings", "losses", "seeds", "diverged", "unfinished", *means]
    return pd.DataFrame(rows, columns=columns)


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The best trial of each optimizer in each workload, beside the baseline's best.

    Args:
        trials: As ``trials`` returns them.

    Returns:
        The columns of ``trials``, and: caveat (why another one may be the best, or ""), trials
        (how many were finished, the tuning budget), rates (the learning rates it is the best of,
        see ``rate_grid``), edge (see ``edge``, over these, or ""), gap and p (see ``welch``,
        against ``BASELINE``). What is best is told by ``gptopt.ranking``; the lowest mean comes
        first.
    """
    import pandas as pd

    rows = []
    for _, workload in trials[trials["n"] > 0].groupby("workload"):
        tried = {name: records(mine) for name, mine in workload.groupby("optimizer")}
        best = sorted((_best(mine) for mine in tried.values()), key=lambda row: row["mean"])
        losses = {row["optimizer"]: row["losses"] for row in best}
        baseline = losses.get(BASELINE, [])
        for row in best:
            rates = rate_grid(tried[row["optimizer"]], row)
            gap, p = welch(row["losses"], [] if row["optimizer"] == BASELINE else baseline)
            flag = edge(rates, row["lr"]) if math.isfinite(row["mean"]) else None
            budget = {"trials": len(tried[row["optimizer"]]), "rates": rates}
            rows.append({**row, **budget, "edge": flag or "", "gap": gap, "p": p})
    added = ["caveat", "trials", "rates", "edge", "gap", "p"]
    return pd.DataFrame(rows, columns=[*trials.columns, *added])


def _best(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of the trials of one optimizer."""
    losses = [dict(zip(row["seeds"], row["losses"], strict=True)) for row in tried]
    means = comparable_means(losses)
    place = min(range(len(means)), key=means.__getitem__)
    return tried[place] | {"caveat": caveat(losses, place)}
