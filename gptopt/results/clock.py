"""Whether times may be compared: equal work should take equal time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptopt.results.runs import Runs, records, settings_of

if TYPE_CHECKING:
    import pandas as pd

UNEQUAL = 1.5
"""Equal work that takes this much longer in one run than in another was disturbed."""
HOST = "run.host"


def clock_doubts(sides: Sequence[Runs]) -> list[str]:
    """Reasons to doubt a comparison in seconds, a sentence each.

    Args:
        sides: Of one workload each: what is compared.
    """
    hosts: set[str] = set()
    spread = []
    for runs in sides:
        hosts |= set(runs.runs[HOST].dropna()) if HOST in runs.runs else set()
        for _, equal in step_times(runs).groupby("work"):
            ms, optimizer = equal["step_ms"], equal["optimizer"].iloc[0]
            if ms.max() > UNEQUAL * ms.min():
                spread.append(f"{optimizer} {ms.min():.3g} to {ms.max():.3g} ms")
    found = []
    if spread:
        listed = ", ".join(dict.fromkeys(spread))
        found.append(f"Seconds mislead: steps of equal work took, by the run, {listed}.")
    if len(hosts) > 1:
        found.append(f"Seconds mislead: the runs were on {len(hosts)} hosts.")
    return found


def step_times(runs: Runs) -> pd.DataFrame:
    """How long a step took in each run, and what work it was.

    Runs do equal work whose optimizer, host and swept settings agree, fractions apart: a rate or a
    decay costs nothing, another batch, number of iterations or switch does.

    Returns:
        By run_id: step_ms (the median over the logged rows but the first, which pays for the
        warm-up; where none was logged, the mean over the run), optimizer, and work in words.
    """
    table = runs.runs.set_index("run_id")
    rows = runs.metrics[["run_id", "step_ms"]].dropna()
    rows = rows[rows["run_id"].duplicated()]
    logged = rows.groupby("run_id", observed=True)["step_ms"].median()
    mean = 1e3 * table["seconds"] / table["step"].where(table["step"] > 0)
    settings = settings_of(runs.runs)
    work = [
        ", ".join([row["optimizer"], str(row.get(HOST)), *_work(settings[_key(row)])])
        for row in records(table)
    ]
    times = table[["optimizer"]].assign(step_ms=table.index.map(dict(logged)), work=work)
    return times.assign(step_ms=times["step_ms"].fillna(mean)).dropna(subset=["step_ms"])


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["workload"], row["optimizer"], row["trial"]


def _work(settings: dict[str, Any]) -> list[str]:
    return [
        f"{name}={value}"
        for name, value in sorted(settings.items())
        if not isinstance(value, float) and not name.endswith("lr")
    ]
