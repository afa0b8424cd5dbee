"""A report of a sweep: what was run, what came out, how sure that is, and what it looks like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptopt import files, layout
from gptopt.results.fairness import warnings
from gptopt.results.load import Paths, Runs, load, records, swept
from gptopt.results.page import (
    Block,
    Code,
    Heading,
    Image,
    Table,
    Text,
    Warnings,
    to_html,
    to_markdown,
)
from gptopt.results.stats import BASELINE, best_trials, trials

if TYPE_CHECKING:
    import pandas as pd

OVERVIEW = [
    "model",
    "dataset",
    "optimizer",
    "lr",
    "seed",
    "state",
    "step",
    "max_steps",
    "final_val_loss",
    "best_val_loss",
    "final_train_loss",
    "seconds",
    "tokens_per_second",
]
FORMATS = {
    "final_val_loss": ".4f",
    "best_val_loss": ".4f",
    "final_train_loss": ".4f",
    "seconds": ".1f",
    "tokens_per_second": ".0f",
}
JUDGED = (
    "A trial is one setting of the hyperparameters over its seeds, judged by the mean validation "
    "loss (nats per token) at the end of its runs. The interval is that of the mean by Student's "
    "t (95 %). Gap and p compare with the best trial of {baseline} (Welch's test, two-sided, not "
    "corrected for several comparisons). The best trial was chosen by the same runs, which "
    "neither knows."
)


def table(paths: Paths) -> pd.DataFrame:
    """The runs below ``paths`` in a few columns: what was swept, and what came out.

    Raises:
        ValueError: If there is no run.
    """
    return _overview(_load_some(paths).runs)


def report(paths: Paths, out: Path) -> Path:
    """Writes report.html, report.md, runs.csv and figures/ into ``out``.

    Args:
        paths: Directories of runs.
        out: Created when missing; files of an earlier report are replaced.

    Returns:
        The path of report.html.

    Raises:
        ValueError: If there is no run.
    """
    found = _load_some(paths)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    workloads = found.workloads()
    doubts = {title: warnings(part.runs) for title, part in workloads.items()}
    blocks: list[Block] = [Heading("Which optimizer, and how sure are we?", 1)]
    blocks += [
        block
        for title, items in doubts.items()
        for block in (Text(f"{title}:"), Warnings(items))
        if items
    ]
    blocks += [Heading("What was run", 2), _provenance(found.runs)]
    for title, part in workloads.items():
        blocks += _results(title, part, out)
    blocks += _repeat(found.runs)
    blocks += _left_out(found.problems)
    found.runs.to_csv(out / "runs.csv", index=False)
    files.write(out / "report.md", to_markdown(blocks))
    files.write(out / "report.html", to_html(blocks, "gptopt report"))
    return out / "report.html"


def _load_some(paths: Paths) -> Runs:
    found = load(paths)
    if found.runs.empty:
        listed = [paths] if isinstance(paths, (str, Path)) else paths
        reasons = "".join(f"\n{p.path}: {p.problem}" for p in found.problems.itertuples())
        raise ValueError(
            f"No run below {', '.join(map(str, listed))}. A run is a directory with a "
            f"{layout.RESOLVED}, as run_hydra.py writes it.{reasons}"
        )
    return found


def _overview(runs: pd.DataFrame) -> pd.DataFrame:
    extra = [column for column in swept(runs) if column != "optimizer.optimizer_params.lr"]
    place = OVERVIEW.index("state")
    columns = [*OVERVIEW[:place], *extra, *OVERVIEW[place:], "run_name"]
    return runs.sort_values(["model", "dataset", "optimizer", "lr", "seed"])[columns]


def _results(title: str, part: Runs, out: Path) -> list[Block]:
    """What came out of one workload."""
    best = best_trials(trials(part.runs))
    blocks: list[Block] = [Heading(title, 2)]
    if best.empty:
        blocks.append(Text("No run has ended yet."))
    else:
        blocks += [_best_table(best), Text(JUDGED.format(baseline=BASELINE))]
    blocks += _figures(layout.safe_name(title.replace(",", "").replace(" ", "-")), part, out)
    runs = _overview(part.runs).drop(columns=["model", "dataset"])
    rows = [[_cell(name, row[name]) for name in map(str, runs)] for row in records(runs)]
    return [*blocks, Heading(f"All runs: {title}", 2), Table(list(map(str, runs)), rows)]


def _best_table(best: pd.DataFrame) -> Table:
    head = ["optimizer", "lr", "validation loss ± sd", "seeds", "95 % interval"]
    head += [f"gap to {BASELINE}", "p", "trials", "lr is the"]
    rows = [
        [
            row["optimizer"],
            f"{row['lr']:g}",
            _join(" ± ", row["mean"], row["sd"]),
            str(row["n"]),
            _join(" to ", row["low"], row["high"]),
            _number(row["gap"], "+.4f"),
            "< 0.0001" if row["p"] < 1e-4 else _number(row["p"], ".4f"),
            str(row["trials"]),
            f"{row['edge']} tried" if row["edge"] else "",
        ]
        for row in records(best)
    ]
    return Table(head, rows)


def _figures(name: str, part: Runs, out: Path) -> list[Block]:
    # Here, so that a table needs no matplotlib.
    from gptopt.results import plots

    drawn = {
        "best": plots.best_per_optimizer(part),
        "learning-rates": plots.learning_rates(part),
        "val-loss-steps": plots.loss_curves(part, x="step", loss="val_loss"),
        "val-loss-tokens": plots.loss_curves(part, x="tokens", loss="val_loss"),
        "val-loss-seconds": plots.loss_curves(part, x="seconds", loss="val_loss"),
        "train-loss-steps": plots.loss_curves(part, x="step", loss="train_loss"),
    }
    blocks: list[Block] = []
    for kind, plot in drawn.items():
        if not plot.data.empty:
            stem = f"figures/{name}-{kind}"
            plot.save(out / stem)
            blocks.append(Image((out / f"{stem}.png").read_bytes(), stem, plot.caption))
    return blocks


def _provenance(runs: pd.DataFrame) -> Table:
    shown = {
        "runs": "state",
        "sweep": "sweep",
        "model": "model",
        "parameters": "run.parameters.total",
        "without embeddings": "run.parameters.non_embedding",
        "dataset": "dataset",
        "training tokens per run": "total_tokens",
        "code": "run.git.commit",
        "uncommitted changes": "run.git.dirty",
        "torch": "run.versions.torch",
        "device": "run.device",
        "threads": "run.threads",
        "host": "run.host",
    }
    rows = [[label, _counts(runs[column])] for label, column in shown.items() if column in runs]
    hours = runs["seconds"].sum() / 3600
    rows += [["training time, all runs", f"{hours:.2f} h"]]
    return Table(["", "value (runs)"], [row for row in rows if row[1]])


def _counts(column: pd.Series) -> str:
    """Each value with the number of runs that have it."""
    counts = column.value_counts(sort=False)
    return ", ".join(f"{_cell('', value)} ({n})" for value, n in counts.items())


def _repeat(runs: pd.DataFrame) -> list[Block]:
    sweeps = runs["sweep"].dropna().unique()
    alone = runs.loc[runs["sweep"].isna(), "overrides"].dropna()
    lines = [f"slurm_scripts/submit.sh params/{sweep}.json" for sweep in sweeps]
    lines += [f"python run_hydra.py {overrides}" for overrides in alone]
    return [Heading("To repeat it", 2), Code("\n".join(lines))] if lines else []


def _left_out(problems: pd.DataFrame) -> list[Block]:
    if problems.empty:
        return []
    rows = [[str(value) for value in row] for row in problems.itertuples(index=False)]
    return [Heading("What could not be read", 2), Table(list(problems.columns), rows)]


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _number(value, FORMATS.get(name, ",.10g" if name == "" else ".10g"))
    return "" if value is None else str(value)


def _join(word: str, *values: float) -> str:
    return word.join(filter(None, (_number(value, ".4f") for value in values)))


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
