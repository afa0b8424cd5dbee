"""``gptopt sweep``: plan, submit, status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptopt.cli.common import REPORTS, SWEEPS, reports_errors, write_report
from gptopt.state import ExitCode

if TYPE_CHECKING:
    from gptopt.sweep.plan import Plan
    from gptopt.sweep.record import Record

MAX_RUNS = 1000


@click.group()
def sweep() -> None:
    """Run a parameter file: everything in it that has no result yet."""


file_argument = click.argument("file", type=click.Path(path_type=Path))
overrides_argument = click.argument("overrides", nargs=-1)
max_option = click.option(
    "--max", "max_runs", default=MAX_RUNS, show_default=True, help="Refuse more runs than this."
)
cluster_option = click.option("--cluster", help="A file of hydra_conf/cluster/, by name.")


@sweep.command("plan")
@file_argument
@overrides_argument
@cluster_option
@max_option
@reports_errors
def plan_command(
    file: Path, overrides: tuple[str, ...], cluster: str | None, max_runs: int
) -> None:
    """Check FILE with all its runs and tell what is to do; start nothing."""
    from gptopt.sweep.plan import plan

    _show(plan(file, _with_cluster(overrides, cluster), max_runs=max_runs))


@sweep.command()
@file_argument
@overrides_argument
@click.option(
    "--via",
    type=click.Choice(["auto", "local", "submitit", "disbatch"]),
    default="auto",
    show_default=True,
    help="auto: submitit where there is a SLURM, else this machine's cores.",
)
@cluster_option
@click.option("--dry-run", is_flag=True, help="Check and tell, start nothing.")
@click.option("--report", is_flag=True, help="Then write reports/<name of FILE>/ (local only).")
@max_option
@reports_errors
def submit(
    file: Path,
    overrides: tuple[str, ...],
    via: str,
    cluster: str | None,
    dry_run: bool,
    report: bool,
    max_runs: int,
) -> None:
    """Start what FILE asks for and has no result yet.

    OVERRIDES are for all runs, as for run_hydra.py: training=tiny cluster.workers=4 +logging=wandb
    """
    from gptopt import dispatch
    from gptopt.dispatch import slurm
    from gptopt.sweep.plan import plan
    from gptopt.sweep.record import Record

    if via == "submitit" and not slurm.is_here():
        raise ValueError("--via submitit: there is no SLURM here (no sbatch on the PATH).")
    chosen = cluster or any(text.startswith("cluster=") for text in overrides)
    if not chosen and via != "local" and slurm.is_here():
        cluster = "slurm-disbatch" if via == "disbatch" else "slurm"
    planned = plan(file, _with_cluster(overrides, cluster), max_runs=max_runs)
    backend = planned.cluster.backend if via == "auto" else via
    if report and backend != "local":
        raise ValueError("--report waits for the runs; jobs in a queue are not waited for.")
    planned = planned.with_pending(_pending(planned.name))
    if dry_run:
        _show(planned)
        return
    _tell(planned)
    code = ExitCode.DONE
    if planned.to_do:
        record = Record.create(planned, SWEEPS.absolute())
        click.echo(f"record: {record.directory}")
        code = _start(dispatch.backend(backend), record, planned)
    if report:
        write_report([run.run for run in planned.runs], REPORTS / planned.name)
    sys.exit(int(code))


@sweep.command()
@click.argument("what", metavar="FILE|RECORD", type=click.Path(exists=True, path_type=Path))
@overrides_argument
@max_option
@reports_errors
def status(what: Path, overrides: tuple[str, ...], max_runs: int) -> None:
    """Tell how the runs of a parameter file, or of a run_info directory, stand."""
    from gptopt.sweep import listing
    from gptopt.sweep.plan import plan, summary
    from gptopt.sweep.record import Record

    if what.is_dir():
        runs = Record(what).runs()
    else:
        planned = plan(what, overrides, max_runs=max_runs)
        runs = planned.with_pending(_pending(planned.name)).runs
    click.echo("\n".join([*listing.lines(runs), summary(runs)]))


def _with_cluster(overrides: Sequence[str], cluster: str | None) -> list[str]:
    return [*overrides, *([f"cluster={cluster}"] if cluster else [])]


def _pending(name: str) -> set[Path]:
    from gptopt.dispatch import slurm
    from gptopt.sweep.record import records

    return slurm.pending(records(SWEEPS.absolute(), name))


def _show(planned: Plan) -> None:
    from gptopt.sweep import listing

    click.echo("\n".join(listing.lines(planned.runs)))
    _tell(planned)


def _tell(planned: Plan) -> None:
    click.echo("\n".join([*planned.notes, planned.summary()]))


def _start(backend: Any, record: Record, planned: Plan) -> ExitCode:
    from gptopt.dispatch import SubmissionError
    from gptopt.sweep.plan import summary

    try:
        submission = backend.submit(record, planned.cluster)
    except SubmissionError as error:
        click.echo(error, err=True)
        return ExitCode.CRASH
    if submission.jobs:
        click.echo(submission.message)
        return ExitCode.DONE
    click.echo(summary(record.runs()))
    if submission.failed:
        return ExitCode.CRASH
    return ExitCode.RUN_AGAIN if submission.unfinished else ExitCode.DONE
