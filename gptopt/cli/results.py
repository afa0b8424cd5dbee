"""``gptopt results``: tables and reports of run directories."""

from __future__ import annotations

from pathlib import Path

import click

from gptopt.cli.common import REPORTS, reports_errors, write_report


@click.group()
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
    write_report(list(paths), out or REPORTS / paths[0].resolve().name)
