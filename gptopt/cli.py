"""The command ``gptopt``: thin, and quick to answer, since every import waits until it is needed.

Exit codes: 0 done, 1 runs failed or a back end refused, 2 bad configuration or usage,
65 bad data, 75 stopped before the end (the same command goes on).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptopt.state import ExitCode

if TYPE_CHECKING:
    from gptopt.sweep.plan import Plan
    from gptopt.sweep.record import Record

SWEEPS = Path("logs")
REPORTS = Path("reports")
MAX_RUNS = 1000


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Ends the process with the right code and one clear message instead of a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:  # ConfigError and DataError are some
            click.echo(error, err=True)
            names = {kind.__name__ for kind in type(error).__mro__}
            sys.exit(int(ExitCode.DATA if "DataError" in names else ExitCode.CONFIG))

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Compare optimizers on GPT pre-training."""


@main.group()
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
def plan_command(file: Path, overrides: tuple[str, ...], cluster: str | None, max_runs: int) -> None:
    """Check FILE with all its runs and tell what is to do; start nothing."""
    from gptopt.sweep.plan import plan

    _show(plan(file, _with_cluster(overrides, cluster), max_runs=max_runs))


@sweep.command()
@file_argument
@overrides_argument
@click.option(
    "--via",
    type=click.Choice(["auto", "local", "submitit"]),
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
        cluster = "slurm"
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
        _report([run.run for run in planned.runs], REPORTS / planned.name)
    sys.exit(int(code))
