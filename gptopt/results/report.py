"""A report of a sweep: what was run, what came out, how sure that is, and what it looks like."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from gptopt import files, layout
from gptopt.results import report_tables as tables
from gptopt.results.clock import clock_doubts
from gptopt.results.fairness import warnings
from gptopt.results.load import Paths, Runs, load_some
from gptopt.results.page import (
    Block,
    Code,
    Heading,
    Image,
    Link,
    Table,
    Text,
    Warnings,
    to_html,
    to_markdown,
)
from gptopt.results.repeat import sweep_file
from gptopt.results.stats import BASELINE, best_trials, trials

if TYPE_CHECKING:
    import pandas as pd

    from gptopt.results.style import Plot

JUDGED = (
    "A trial is one setting of the hyperparameters over its seeds, judged by the mean validation "
    "loss (nats per token) at the end of its runs. The interval is that of the mean by Student's "
    "t (95 %). Gap and p compare with the best trial of {baseline}: Welch's test, two-sided; the "
    "last p holds for all comparisons of the table together (Holm). The best trial was chosen by "
    "the same runs, which no p knows."
)
REPEAT = "repeat.json"
SMOOTHED_ROWS = 5
"""Logged rows that a point of the training loss is the mean of: each is the loss of one batch."""
LAYER_MEASURES = ("relative_update", "update_spectral_norm", "weight_spectral_norm", "step_size")


def table(paths: Paths) -> pd.DataFrame:
    """The runs below ``paths`` in a few columns: what was swept, and what came out.

    Raises:
        ValueError: If there is no run.
    """
    return tables.overview(load_some(paths).runs)


def report(paths: Paths, out: Path) -> Path:
    """Writes report.html, report.md, runs.csv, repeat.json and figures/ into ``out``.

    Files of these names are replaced, others stay.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there is no run.
    """
    found = load_some(paths)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    workloads = found.workloads()
    doubts = {
        title: warnings(part.runs) + clock_doubts([part]) for title, part in workloads.items()
    }
    blocks: list[Block] = [Heading("Which optimizer, and how sure are we?", 1)]
    blocks += [
        block
        for title, items in doubts.items()
        for block in (Text(f"{title}:"), Warnings(items))
        if items
    ]
    blocks += [Heading("What was run", 2), tables.provenance(found.runs)]
    blocks += [tables.budget(found.runs), *_failures(found.runs)]
    for title, part in workloads.items():
        blocks += _results(title, part, out)
    if len(workloads) > 1:
        blocks += _across(found, out)
    blocks += _repeat(found.runs, out)
    blocks += _left_out(found.problems)
    found.runs.to_csv(out / "runs.csv", index=False)
    files.write(out / "report.md", to_markdown(blocks))
    files.write(out / "report.html", to_html(blocks, "gptopt report"))
    return out / "report.html"


# --- one workload -------------------------------------------------------------------------------


def _results(title: str, part: Runs, out: Path) -> list[Block]:
    """What came out of one workload."""
    best = best_trials(trials(part.runs))
    blocks: list[Block] = [Heading(title, 2)]
    if best.empty:
        blocks.append(Text("No run has ended with a validation loss."))
    else:
        blocks += [tables.best(best), Text(JUDGED.format(baseline=BASELINE))]
    figures = _Figures(out, layout.safe_name(title.replace(",", "").replace(" ", "-")))
    for heading, drawn in _drawn(part, best).items():
        images = [block for kind, plot in drawn.items() for block in figures.blocks(kind, plot)]
        blocks += [Heading(heading, 3), *images] if images else []
    return [*blocks, Heading("All runs", 3), tables.all_runs(part.runs)]


def _drawn(part: Runs, best: pd.DataFrame) -> dict[str, dict[str, Plot]]:
    """The figures of one workload by heading and name."""
    # Here, so that a table needs no matplotlib.
    from gptopt.results import plots

    drawn = {
        "The best of each optimizer": {
            "best": plots.best_per_optimizer(part),
            "tuned-tokens": plots.tuned_curves(part, x="tokens", loss="val_loss"),
            "tuned-seconds": plots.tuned_curves(part, x="seconds", loss="val_loss"),
        },
        "Tuning": {"learning-rates": plots.final_loss(part)},
        "Every run": {
            "val-loss-steps": plots.loss_curves(part, x="step", loss="val_loss"),
            "train-loss-steps": plots.loss_curves(
                part, x="step", loss="train_loss", smooth=SMOOTHED_ROWS
            ),
        },
        "What a step costs": {"cost": plots.optimizer_cost(part)},
        "Layers": {},
    }
    tuning, layers = drawn["Tuning"], drawn["Layers"]
    axes = tables.numeric_axes(part.runs)
    for axis in axes:
        tuning[f"by-{tables.short(axis, axes)}"] = plots.final_loss(part, axis=axis)
    for optimizer, (x, y) in tables.pairs(part.runs).items():
        tuning[f"map-{optimizer}"] = plots.heat_map(part, optimizer=optimizer, x=x, y=y)
    for optimizer in best["optimizer"]:
        ablation = plots.ablation(part, optimizer=optimizer)
        if set(ablation.data["setting"]) - {"", tables.RATE}:  # those have a figure already
            tuning[f"ablation-{optimizer}"] = ablation
    if len(best) and best["trials"].max() > 1:
        tuning["best-of-k"] = plots.best_of_k(part)
    if len(best) > 1:
        drawn["What a step costs"]["cost-and-quality"] = plots.cost_and_quality(part)
    if tables.is_diagnosed(part.runs):
        logged = plots.measures(part)
        for measure in (name for name in LAYER_MEASURES if name in logged):
            layers[f"layers-{measure}"] = plots.layer_traces(part, measure=measure)
    return drawn


class _Figures:
    """Writes figures beside the page."""

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.name = out, name

    def blocks(self, kind: str, plot: Plot) -> list[Block]:
        """The figure and, of an ablation, its table; nothing of a figure that shows nothing."""
        if plot.data.empty:
            return []
        stem = f"figures/{layout.safe_name(f'{self.name}-{kind}')}"
        plot.save(self.out / stem)
        image = Image((self.out / f"{stem}.png").read_bytes(), stem, plot.caption)
        return [image, tables.ablation(plot.data)] if kind.startswith("ablation") else [image]


# --- all workloads ------------------------------------------------------------------------------


def _across(found: Runs, out: Path) -> list[Block]:
    from gptopt.results import plots

    figures = _Figures(out, "all")
    blocks = figures.blocks("profile", plots.performance_profile(found))
    blocks += figures.blocks("speed-up", plots.speed_up(found))
    return [Heading("Across workloads", 2), *blocks] if blocks else []


def _failures(runs: pd.DataFrame) -> list[Block]:
    failed = runs[runs["state"].isin(["failed", "diverged", "interrupted", "preempted"])]
    if failed.empty:
        return []
    columns = ["optimizer", "run_name", "state", "reason"]
    rows = failed[columns].fillna("").astype(str).to_numpy().tolist()
    text = Text("Runs that diverged, failed or were stopped:")
    return [text, Table(["optimizer", "run", "state", "reason"], rows)]


def _repeat(runs: pd.DataFrame, out: Path) -> list[Block]:
    text, unsaid = sweep_file(runs["overrides"].dropna())
    lines = [f"python run_hydra.py {overrides}" for overrides in unsaid]
    blocks: list[Block] = []
    if text:
        files.write(out / REPEAT, text)
        lines.insert(0, f"slurm_scripts/submit.sh {shlex.quote(str(out / REPEAT))}")
        blocks.append(Link(REPEAT, "a sweep file of exactly these runs, apart from where they lie"))
    commits = set(runs["run.git.commit"].dropna()) if "run.git.commit" in runs else set()
    if len(commits) == 1 and lines:
        lines.insert(0, f"git checkout {commits.pop()}")
    if lines:
        blocks.append(Code("\n".join(lines)))
    sweeps = runs["sweep"].dropna().unique()
    if len(sweeps):
        blocks.append(Text(f"They were started by the sweeps {', '.join(sorted(sweeps))}."))
    return [Heading("To repeat it", 2), *blocks] if blocks else []


def _left_out(problems: pd.DataFrame) -> list[Block]:
    if problems.empty:
        return []
    rows = [[str(value) for value in row] for row in problems.itertuples(index=False)]
    return [Heading("What could not be read", 2), Table(list(problems.columns), rows)]
