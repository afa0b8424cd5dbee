"""``gptopt results``: what run directories hold, as tables, pages and lines."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptopt.cli.common import REPORTS, reports_errors, write_report
from gptopt.cli.judging import check, compare, next_command

if TYPE_CHECKING:
    from gptopt.results import Runs

REFRESH_S = 5.0


@click.group()
def results() -> None:
    """Read run directories: tables, reports, comparisons, claims."""


for command in (compare, check, next_command):
    results.add_command(command)

path = click.Path(exists=True, path_type=Path)
paths_argument = click.argument("paths", nargs=-1, required=True, type=path)
run_argument = click.argument("run", type=path)


@results.command()
@paths_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A .csv, .parquet or .tex file.")
@reports_errors
def table(paths: tuple[Path, ...], out: Path | None) -> None:
    """Print a row per run below PATHS: what was swept and what came out."""
    from gptopt import results as analysis
    from gptopt.results.export import write_table

    found = analysis.table(list(paths))
    if out is None:
        click.echo(found.to_string(index=False))
    else:
        write_table(found, out)


@results.command("report")
@paths_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), help="[default: reports/<PATH>]")
@reports_errors
def report_command(paths: tuple[Path, ...], out: Path | None) -> None:
    """Write figures and tables of the runs below PATHS into a directory."""
    write_report(list(paths), out or REPORTS / paths[0].resolve().name)


@results.command("import")
@click.argument("kind", metavar="FORMAT")
@click.argument("source", metavar="PATH", type=path)
@click.argument("settings", nargs=-1)
@click.option(
    "-o",
    "--out",
    default=Path("outputs/imported"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the run directories go.",
)
@reports_errors
def import_command(kind: str, source: Path, settings: tuple[str, ...], out: Path) -> None:
    """Make run directories of the logs of another program below PATH.

    FORMAT: gpt-opt, modded-nanogpt, nanogpt, wandb, tensorboard. SETTINGS are what the logs do
    not tell: model.name=gpt2 data.name=fineweb optimizer.optimizer_params.name=muon
    """
    from gptopt.results.importers import import_runs
    from gptopt.results.repeat import value_of

    pairs = [text.partition("=") for text in settings]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise ValueError(f"{bad[0]!r}: a setting is key=value, such as model.name=gpt2.")
    values = {key: value_of(value) for key, _, value in pairs}
    found = import_runs(kind, source, out, settings=values)
    click.echo(f"{out}: {len(found.runs)} runs")


@results.command()
@run_argument
@reports_errors
def show(run: Path) -> None:
    """Print what is known of RUN: state, result, settings, provenance, parameters."""
    from gptopt.results.show import show

    click.echo("\n".join(show(_one(run))))


@results.command()
@click.argument("a", type=path)
@click.argument("b", type=path)
@reports_errors
def diff(a: Path, b: Path) -> None:
    """Tell in what runs A and B differ, and at which step their losses part."""
    from gptopt.results.diff import diff

    click.echo("\n".join(diff(_one(a), _one(b))))


def _one(run: Path) -> Runs:
    from gptopt.results.load import load_some

    found = load_some(run)
    if len(found.runs) > 1:
        raise ValueError(f"{run} holds {len(found.runs)} runs; name the directory of one.")
    return found


@results.command()
@paths_argument
@click.option("--once", is_flag=True, help="Print it once, also on a terminal.")
@click.option(
    "--serve",
    metavar="[PORT]",
    is_flag=False,
    flag_value="8000",
    help="Show it in a browser of this machine instead, by default at port 8000.",
)
@reports_errors
def watch(paths: tuple[Path, ...], once: bool, serve: str | None) -> None:
    """Show how the runs below PATHS stand: counts, best so far, curves, time left.

    On a terminal and in a browser it is kept up to date; Ctrl-C leaves it.
    """
    if serve is not None:
        _serve(paths, serve)
    elif once or not sys.stdout.isatty():
        click.echo("\n".join(_standing(paths)))
    else:
        _live(paths)


def _standing(paths: tuple[Path, ...]) -> list[str]:
    from gptopt.results import load
    from gptopt.results.watch import lines

    return lines(load(paths))


def _serve(paths: tuple[Path, ...], place: str) -> None:
    from gptopt.results.serve import address, server

    with server(address(place), lambda: _standing(paths)) as page:
        host, port = page.server_address[:2]
        click.echo(f"http://{host!s}:{port}/ (Ctrl-C ends it)")
        try:
            page.serve_forever()
        except KeyboardInterrupt:
            click.echo()


def _live(paths: tuple[Path, ...]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        try:
            while True:
                lines = _standing(paths)
                room = max(2, live.console.height - 1)
                live.update(Text("\n".join(lines[:room])), refresh=True)
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return
