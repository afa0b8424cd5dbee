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
            sys.exit(int(getattr(error, "exit_code", ExitCode.CONFIG)))

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
        _report([run.run for run in planned.runs], REPORTS / planned.name)
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


@main.group()
def results() -> None:
    """Read run directories: tables and reports."""


paths_argument = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)


@results.command()
@paths_argument
@click.option("--csv", type=click.Path(path_type=Path), help="Write it there as CSV instead.")
@reports_errors
def table(paths: tuple[Path, ...], csv: Path | None) -> None:
    """Print a row per run below PATHS: what was swept and what came out."""
    from gptopt import results as analysis

    found = analysis.table(list(paths))
    if csv is None:
        click.echo(found.to_string(index=False))
    else:
        found.to_csv(csv, index=False)


@results.command("report")
@paths_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), help="[default: reports/<PATH>]")
@reports_errors
def report_command(paths: tuple[Path, ...], out: Path | None) -> None:
    """Write figures and tables of the runs below PATHS into a directory."""
    _report(list(paths), out or REPORTS / paths[0].resolve().name)


@main.group()
def data() -> None:
    """Make token shards from text."""


@data.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new directory.")
@click.option("--tokenizer", default="gpt2", show_default=True, help="gpt2 or bytes.")
@click.option("--val-share", default=0.005, show_default=True, help="Part of the documents.")
@click.option("--shard-tokens", default=100_000_000, show_default=True, help="Tokens of a file.")
@click.option("--text-key", default="text", show_default=True, help="Field of a .jsonl line.")
@click.option("--data-root", default="data", envvar="DATA_ROOT", show_default=True)
@reports_errors
def prepare(sources: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Tokenize SOURCES (.txt, .jsonl, or directories of them) into shards for data=bin."""
    from gptopt.data.prepare import prepare

    tokens = prepare(sources, out, **options)["tokens"]
    click.echo(f"{out}: {tokens['train']:,} tokens to train on, {tokens['val']:,} held out")


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


def _report(runs: list[Path], out: Path) -> None:
    from gptopt import results as analysis

    click.echo(f"report: {analysis.report(runs, out)}")


if __name__ == "__main__":
    main()
