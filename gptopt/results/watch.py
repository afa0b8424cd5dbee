"""How a tree of runs stands at this moment, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptopt.results.runs import Runs, records
from gptopt.results.select import brief, shown
from gptopt.results.stats import best_trials, trials

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 30
SHOWN_RUNS = 20


def lines(found: Runs) -> list[str]:
    """Counts, the best so far, and each run at work with its curve and the time it has left."""
    if found.runs.empty:
        return ["no run yet"]
    shown = []
    for title, part in found.workloads().items():
        counts = part.runs["state"].value_counts()
        listed = ", ".join(f"{count} {state}" for state, count in counts.items())
        shown += [f"{title}: {len(part.runs)} runs, {listed}", *_best(part), *_running(part), ""]
    return shown[:-1]


def _best(part: Runs) -> list[str]:
    rows = records(best_trials(trials(part.runs)))
    width = max((len(row["optimizer"]) for row in rows), default=0)
    return [
        f"  {row['optimizer']:<{width}}  {row['mean']:.4f}"
        + (f" ± {row['sd']:.4f}" if math.isfinite(row["sd"]) else " " * 9)
        + f"  n = {row['n']}  lr {brief(row['lr'])} of {len(row['rates'])}"
        + (f"  EDGE: the {row['edge']}" if row["edge"] else "")
        for row in rows
    ]


def _running(part: Runs) -> list[str]:
    rows = records(part.runs[part.runs["state"] == "running"])
    shown = [_run(row, part) for row in rows[:SHOWN_RUNS]]
    if len(rows) > SHOWN_RUNS:
        shown.append(f"  ... and {len(rows) - SHOWN_RUNS} more at work")
    return shown


def _run(row: dict[str, Any], part: Runs) -> str:
    metrics = part.of(row["run_id"])
    losses = metrics["val_loss"].dropna().tolist() or metrics["train_loss"].dropna().tolist()
    last = f"{losses[-1]:.4f}" if losses else ""
    return (
        f"  {row['optimizer']} {row['run_name']}  {row['step']}/{shown(row['max_steps'])}"
        f"  {sparkline(losses)} {last}  {left(row['step'], row['max_steps'], row['seconds'])}"
    )


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """``values`` as bars from the lowest to the highest; x where one is not finite.

    Of more than ``width`` values, as many at equal distances, the last one among them.
    """
    if len(values) > width:
        last = len(values) - 1
        values = [values[round(place * last / (width - 1))] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "x" * len(values)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        BARS[round((value - low) / span * (len(BARS) - 1)) if span else 0]
        if math.isfinite(value)
        else "x"
        for value in values
    )


def left(step: float, max_steps: float, seconds: float) -> str:
    """The time to the last step if the rest goes as fast; empty while that is not known.

    Args:
        step: Optimizer steps done.
        max_steps: Of the whole run.
        seconds: What the steps took, evaluation left out.
    """
    estimate = seconds / step * (max_steps - step) if step else math.nan
    if not math.isfinite(estimate):
        return ""
    whole = round(estimate)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} left"
