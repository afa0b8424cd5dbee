"""What the commands of ``gptopt sweep`` share: their arguments, and how they plan and tell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptopt.cli.common import SWEEPS

if TYPE_CHECKING:
    from gptopt.sweep.plan import Plan
    from gptopt.sweep.record import Record

MAX_RUNS = 1000

file_argument = click.argument("file", type=click.Path(path_type=Path))
what_argument = click.argument(
    "what", metavar="FILE|RECORD", type=click.Path(exists=True, path_type=Path)
)
overrides_argument = click.argument("overrides", nargs=-1)
max_option = click.option(
    "--max",
    "max_runs",
    default=MAX_RUNS,
    show_default=True,
    help="Refuse a stage with more runs than this.",
)
cluster_option = click.option("--cluster", help="A file of hydra_conf/cluster/, by name.")
via_option = click.option(
    "--via",
    type=click.Choice(["auto", "local", "submitit", "disbatch"]),
    default="auto",
    show_default=True,
    help="auto: submitit where there is a SLURM, else this machine's cores.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def planned(what: Path, overrides: Sequence[str], max_runs: int) -> Plan:
    """The plan of a parameter file, or of the one that a run_info directory holds.

    Runs with a job in the queue are pending.
    """
    from gptopt.sweep.overrides import override
    from gptopt.sweep.plan import plan

    if not what.is_dir():
        found = plan(what, overrides, max_runs=max_runs)
    else:
        file = record_at(what).directory / "params.json"
        name = file.resolve().parents[1].name
        extra = [*overrides, override("paths.sweep", name)]
        found = replace(plan(file, extra, max_runs=max_runs), name=name)
    return found.with_pending(pending(found.name))


def recorded(what: Path) -> Plan:
    """The runs of a run_info directory as they were planned then."""
    from gptopt import dispatch
    from gptopt.sweep.plan import Plan

    record = record_at(what)
    name = what.resolve().parent.name
    runs = record.runs()
    cluster = dispatch.submitted_with(record)
    found = Plan(name, what / "params.json", runs, [], cluster, stages=[], axes=[])
    return found.with_pending(pending(name))


def check_data(plan: Plan) -> None:
    """Opens the data of the runs to do, so that bad data is refused before anything is queued.

    Raises:
        DataError: Names the file, the place and the value; exit code 65.
    """
    from gptopt.data.preflight import check_demands

    check_demands(run.demand for run in plan.to_do if run.demand is not None)


def record_at(what: Path) -> Record:
    """The submission whose record is the directory ``what``.

    Raises:
        ValueError: It is the directory of a sweep, with the records of its submissions inside.
    """
    from gptopt.sweep.record import Record, records

    sweep = what.resolve()
    inside = [record.directory.name for record in records(sweep.parent, sweep.name)]
    if inside:
        command = click.get_current_context().info_name
        raise ValueError(
            f"{what} holds the records {', '.join(inside)}. For the newest:"
            f" gptopt sweep {command} {shlex.quote(str(what / inside[-1]))}"
        )
    return Record(what)


def records_of(what: Path) -> list[Record]:
    """The submissions of a parameter file, or the one that is meant."""
    from gptopt import layout
    from gptopt.sweep.record import Record, records

    if what.is_dir():
        return [Record(record_at(what).directory.absolute())]
    return list(records(SWEEPS.absolute(), layout.safe_name(what.stem)))


def pending(name: str) -> set[Path]:
    """Directories of the runs of this sweep that have a job in the queue."""
    from gptopt.dispatch import slurm
    from gptopt.sweep.record import records

    return slurm.pending(records(SWEEPS.absolute(), name))


def show(plan: Plan) -> None:
    """Prints what ``tell`` tells, what varies, what it takes, and then the runs."""
    from gptopt.sweep import listing

    tell(plan)
    click.echo("\n".join([*plan.lines(), *listing.lines(plan.runs)]))


def tell(plan: Plan) -> None:
    """Prints the notes, the stages and the counts."""
    from gptopt.sweep.status import held_lines, stage_lines

    lines = [*plan.notes, *stage_lines(plan.stages), plan.summary()]
    click.echo("\n".join([*lines, *held_lines(plan.runs, plan.file)]))
