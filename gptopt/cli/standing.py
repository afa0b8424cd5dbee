"""``gptopt sweep status``, ``extend``, ``cancel``: what became of the runs, and what next."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptopt.cli.common import reports_errors
from gptopt.cli.planning import (
    file_argument,
    max_option,
    overrides_argument,
    planned,
    records_of,
    what_argument,
    yes_option,
)

if TYPE_CHECKING:
    from gptopt.sweep.plan import Plan, PlannedRun
    from gptopt.sweep.status import Standing

REFRESH_S = 2.0


@click.command()
@what_argument
@overrides_argument
@click.option("--once", is_flag=True, help="Print it once, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, for programs.")
@max_option
@reports_errors
def status(
    what: Path, overrides: tuple[str, ...], once: bool, as_json: bool, max_runs: int
) -> None:
    """Tell how the runs of a parameter file, or of a run_info directory, stand.

    On a terminal the table is kept up to date until nothing runs or waits; Ctrl-C leaves it.
    """
    from gptopt.sweep.record import Record

    # a record holds runs, a parameter file their meaning, too: stages, axes
    plan = None if what.is_dir() else planned(what, overrides, max_runs)
    runs = Record(what).runs() if plan is None else plan.runs
    if as_json:
        click.echo(json.dumps(_as_json(_standings(runs, what), plan), indent=1))
    elif once or not sys.stdout.isatty():
        click.echo("\n".join(_lines(_standings(runs, what), plan, what)))
    else:
        _live(runs, plan, what)


@click.command()
@file_argument
@overrides_argument
@max_option
@reports_errors
def extend(file: Path, overrides: tuple[str, ...], max_runs: int) -> None:
    """Write a file beside FILE that goes on where the best value was the last one tried."""
    from gptopt.sweep import params
    from gptopt.sweep.extend import extend as write
    from gptopt.sweep.plan import plan
    from gptopt.sweep.status import best_lines, bests

    found = plan(file, overrides, max_runs=max_runs)
    all_best = bests(found)
    flagged = [one for one in all_best if any(edge.beyond for edge in one.edges)]
    if not flagged:
        missing = sum(stage.missing for stage in found.stages if stage.is_known)
        why = f" ({missing} runs have no result yet)" if missing else ""
        click.echo(f"no best value lies at an edge that can be extended{why}: nothing was written")
        return
    click.echo("\n".join(best_lines(flagged, found.stages)))
    new = write(params.read(file), flagged)
    click.echo(f"wrote {new}; next: gptopt sweep submit {shlex.quote(str(new))}")


@click.command()
@what_argument
@yes_option
@reports_errors
def cancel(what: Path, yes: bool) -> None:
    """Stop the runs of FILE or RECORD: those at work save, those in the queue leave it."""
    from gptopt import dispatch
    from gptopt.sweep.record import Record

    def is_open(record: Record) -> bool:
        unfinished = {Path(row.run) for row in record.submitted()}
        return any(not run.state.terminal for run in record.runs() if run.run in unfinished)

    opened = [record for record in records_of(what) if is_open(record)]
    if not opened:
        click.echo("nothing of it runs or waits")
        return
    if not yes:
        click.confirm(f"Stop what runs or waits of {what}?", abort=True)
    told = sum(dispatch.cancel(record) for record in opened)
    click.echo(f"{told} jobs and runs were told to stop; submit goes on from what they save")


def _standings(runs: Sequence[PlannedRun], what: Path) -> list[Standing]:
    from gptopt.dispatch import slurm
    from gptopt.sweep.status import standings

    places = {
        run: f"job {place.job} {place.state} {place.reason}".strip()
        for run, place in slurm.queue(records_of(what)).items()
    }
    return standings(runs, places)


def _lines(now: Sequence[Standing], plan: Plan | None, what: Path) -> list[str]:
    from gptopt.sweep.plan import summary
    from gptopt.sweep.status import best_lines, bests, held_lines, stage_lines, table

    lines = table(now)
    if plan is not None:
        lines += [*stage_lines(plan.stages), *best_lines(bests(plan), plan.stages)]
    runs = [one.run for one in now]
    return [*lines, *held_lines(runs, what), summary(runs)]


def _as_json(now: Sequence[Standing], plan: Plan | None) -> dict[str, object]:
    from gptopt.sweep.plan import summary
    from gptopt.sweep.status import bests, bests_json, stages_json

    meaning = {}
    if plan is not None:
        meaning = {"stages": stages_json(plan.stages), "best": bests_json(bests(plan))}
    runs = [one.to_json() for one in now]
    return {"summary": summary([one.run for one in now]), "runs": runs, **meaning}


def _live(runs: Sequence[PlannedRun], plan: Plan | None, what: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    now = _standings(runs, what)
    with Live(auto_refresh=False, transient=True) as live:
        while any(one.run.state.state in ("running", "pending") for one in now):
            # those at work first: a terminal shows no more lines than it has
            now.sort(key=lambda one: one.run.state.state != "running")
            lines, told = _lines(now, plan, what), 1 + len(now)
            room = max(2, live.console.height - len(lines) + told - 1)
            shown = lines if room >= told else [*lines[:room], "...", *lines[told:]]
            live.update(Text("\n".join(shown)), refresh=True)
            time.sleep(REFRESH_S)
            now = _standings(runs, what)
    click.echo("\n".join(_lines(now, plan, what)))
