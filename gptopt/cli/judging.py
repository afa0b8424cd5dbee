"""``gptopt results compare``, ``check``, ``next``: is it better, does it still hold, what now."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptopt.cli.common import reports_errors
from gptopt.cli.planning import max_option
from gptopt.state import ExitCode

if TYPE_CHECKING:
    from gptopt.results import Runs
    from gptopt.results.stats.targets import Cost

runs_option = click.option(
    "--runs",
    "paths",
    multiple=True,
    default=(Path("outputs"),),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the runs lie; may be repeated.",
)


@click.command()
@click.argument("a")
@click.argument("b")
@runs_option
@click.option("--target", type=float, help="Loss that the speed is measured to.")
@click.option(
    "--cost",
    type=click.Choice(["step", "tokens", "seconds", "flops"]),
    default="step",
    show_default=True,
    help="What the speed is measured in.",
)
@reports_errors
def compare(a: str, b: str, paths: tuple[Path, ...], target: float | None, cost: Cost) -> None:
    """Compare the best trial of A with that of B: difference, interval, test, speed.

    A and B are directories of runs, or conditions on those below --runs:
    optimizer=muon,max_grad_norm=null  (all of them hold)  optimizer=muon|normuon  (one of them).
    They may differ in the optimizer and in what the conditions name; where they differ in what
    makes losses comparable, the comparison is refused, and any other difference is told.
    """
    from gptopt.results.compare import compare

    sides, compared = [], set()
    for text in (a, b):
        runs, columns = _side(text, paths)
        sides.append((text, runs))
        compared |= columns
    found = compare(sides[0], sides[1], compared=compared, target=target, cost=cost)
    click.echo("\n".join(found.lines()))


def _side(text: str, paths: tuple[Path, ...]) -> tuple[Runs, set[str]]:
    """The runs that an argument means, and the columns that it names."""
    from gptopt.results.load import load_some
    from gptopt.results.select import Selection

    if os.path.exists(text):  # of a long condition Path.exists raises an error
        return load_some(text), set()
    if "=" not in text:
        raise ValueError(f"{text}: no such directory, and no condition such as optimizer=muon.")
    selection = Selection.parse(text)
    runs = load_some(paths)
    chosen = selection.of(runs)
    return chosen, set(selection.columns(runs.runs).values())


@click.command()
@click.argument("claims", nargs=-1)
@runs_option
@reports_errors
def check(claims: tuple[str, ...], paths: tuple[Path, ...]) -> None:
    """Judge CLAIMS (names in analysis/claims or files; else all of them) by the runs there are.

    Exit code: 0 when every verdict is the one on record, 1 when one is not or cannot be
    told, 75 when only runs are missing.
    """
    from gptopt.results import load
    from gptopt.results.claims import find, read_claims
    from gptopt.results.judge import judge

    asked = read_claims(find(claims))
    runs = load(paths)
    verdicts = [judge(claim, runs) for claim in asked]
    for verdict in verdicts:
        click.echo("\n".join(verdict.lines()))
    if any(not one.is_missing_runs and not one.is_as_recorded for one in verdicts):
        sys.exit(int(ExitCode.CRASH))
    if any(one.is_missing_runs for one in verdicts):
        sys.exit(int(ExitCode.RUN_AGAIN))


@click.command("next")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="[default: params/<PATH>.next.json]"
)
@max_option
@reports_errors
def next_command(paths: tuple[Path, ...], out: Path | None, max_runs: int) -> None:
    """Write a sweep file that goes on from the runs below PATHS, and say why.

    It extends grids of learning rates beyond an edge, halves them around an optimum, and adds the
    seeds that open comparisons need. Nothing is overwritten, and nothing is started.
    """
    from gptopt.results.load import load_some
    from gptopt.results.next import propose

    file = out or Path("params") / f"{paths[0].resolve().name}.next.json"
    if file.exists():
        raise ValueError(f"{file} exists, and nothing is overwritten: submit it, or choose --out.")
    found = propose(load_some(paths))
    click.echo("\n".join(found.reasons))
    if not found.text:
        click.echo("nothing is left to refine: nothing was written")
        return
    click.echo(_write_valid(file, found.text, max_runs))
    click.echo(f"wrote {file}; next: gptopt sweep submit {shlex.quote(str(file))}")


def _write_valid(file: Path, text: str, max_runs: int) -> str:
    """Writes a new sweep file once all its runs have been checked; returns how they stand.

    Raises:
        ValueError: With what is wrong with the runs, as if ``file`` had been written.
    """
    from gptopt.sweep.plan import plan

    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / file.name
        draft.write_text(text, encoding="utf-8")
        try:
            summary = plan(draft, [], max_runs=max_runs).summary()
        except ValueError as error:
            said = str(error).replace(str(draft), str(file))
            raise ValueError(f"{file} is not written: {said}") from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w") as new:
            new.write(text)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}.") from error
    return summary
