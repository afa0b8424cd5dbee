"""``gptopt sweep status``, ``extend``, ``cancel``: what became of the runs, and what next."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptopt.cli.common import reports_errors
from gptopt.cli.planning import (
    file_argument,
    max_option,
    overrides_argument,
    planned,
    record_at,
    records_of,
    what_argument,
    yes_option,
)

if TYPE_CHECKING:
    from gptopt.sweep.edges import Best

REFRESH_S = 2.0


@click.command()
@what_argument
@overrides_argument
@click.option("--stage", type=click.IntRange(1), help="Only the runs of this stage of FILE.")
@click.option("--once", is_flag=True, help="Print it once, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, for programs.")
@max_option
@reports_errors
def status(
    what: Path,
    overrides: tuple[str, ...],
    stage: int | None,
    once: bool,
    as_json: bool,
    max_runs: int,
) -> None:
    """Tell how the runs of a parameter file, or of a run_info directory, stand.

    On a terminal the table is kept up to date until nothing runs or waits; Ctrl-C leaves it.
    """
    view = _View(what, overrides, stage, max_runs)
    if as_json:
        click.echo(json.dumps(view.to_json(), indent=1))
    elif once or not sys.stdout.isatty():
        click.echo("\n".join(view.lines()))
    else:
        _live(view)


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
    if opened and not yes:
        click.confirm(f"Stop what runs or waits of {what}?", abort=True)
    told = sum(dispatch.cancel(record) for record in opened)
    if told:
        words = f"{told} jobs and runs were" if told > 1 else "1 job or run was"
        click.echo(f"{words} told to stop; submit goes on from what they save")
    else:
        click.echo("nothing of it runs or waits")


class _View:
    """What ``status`` shows: the runs of a parameter file or of a record, as they stand now.

    Raises:
        ValueError: There is no such stage.
    """

    def __init__(
        self, what: Path, overrides: Sequence[str], stage: int | None, max_runs: int
    ) -> None:
        self._what = what
        self._stage = stage
        # a record holds runs, a parameter file their meaning, too: stages, axes
        self._replan = None if what.is_dir() else partial(planned, what, overrides, max_runs)
        self._plan = self._replan() if self._replan is not None else None
        if stage is not None and self._plan is None:
            raise ValueError("--stage goes with a parameter file; a record knows no stages.")
        known = 0 if self._plan is None else sum(one.is_known for one in self._plan.stages)
        if stage is not None and stage > known:
            message = f"the runs of its stages are known up to stage {known}."
            raise ValueError(f"--stage {stage}: {what}: {message}")
        self.look()

    def look(self) -> None:
        """Reads how the runs stand; plans once more where a stage has ended meanwhile."""
        from gptopt.dispatch import slurm
        from gptopt.sweep.record import refusals
        from gptopt.sweep.status import standings

        if self._plan is not None and self._replan is not None:
            known = [one for one in self._plan.stages if one.is_known]
            if len(known) < len(self._plan.stages) and not known[-1].missing:
                self._plan = self._replan()
        runs = record_at(self._what).runs() if self._plan is None else self._plan.runs
        if self._stage is not None and self._plan is not None:
            chosen = set(self._plan.stages[self._stage - 1].runs)
            runs = [run for run in runs if run.run in chosen]
        records = records_of(self._what)
        places = {
            run: f"job {place.job} {place.state} {place.reason}".strip()
            for run, place in slurm.queue(records).items()
        }
        self.now = standings(runs, places, refusals(records))
        self._next = [places[one.directory] for one in records if one.directory in places]

    @property
    def is_open(self) -> bool:
        """Whether something runs or waits."""
        at_work = any(one.run.state.state in ("running", "pending") for one in self.now)
        return at_work or bool(self._next)

    def lines(self) -> list[str]:
        """The table, and what it comes to."""
        from gptopt.sweep.plan import summary
        from gptopt.sweep.status import best_lines, held_lines, stage_lines, table

        lines = table(self.now)
        if self._plan is not None:
            lines += [
                *stage_lines(self._plan.stages),
                *best_lines(self._bests(), self._plan.stages),
            ]
        lines += [f"{place}: submits the next stage" for place in self._next]
        runs = [one.run for one in self.now]
        return [*lines, *held_lines(runs, self._what), summary(runs)]

    def to_json(self) -> dict[str, object]:
        """The same for programs."""
        from gptopt.sweep.plan import summary
        from gptopt.sweep.status import bests_json, stages_json

        meaning = {}
        if self._plan is not None:
            stages = stages_json(self._plan.stages)
            meaning = {"stages": stages, "best": bests_json(self._bests())}
        runs = [one.to_json() for one in self.now]
        return {"summary": summary([one.run for one in self.now]), "runs": runs, **meaning}

    def _bests(self) -> list[Best]:
        from gptopt.sweep.status import bests

        found = bests(self._plan) if self._plan is not None else []
        return [one for one in found if self._stage in (None, one.stage)]


def _live(view: _View) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, transient=True) as live:
        while view.is_open:
            # those at work first: a terminal shows no more lines than it has
            view.now.sort(key=lambda one: one.run.state.state != "running")
            lines, told = view.lines(), 1 + len(view.now)
            room = max(2, live.console.height - len(lines) + told - 1)
            shown = lines if room >= told else [*lines[:room], "...", *lines[told:]]
            text = Text("\n".join(shown), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)
            time.sleep(REFRESH_S)
            view.look()
    click.echo("\n".join(view.lines()))
