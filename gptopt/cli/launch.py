"""``gptopt sweep plan``, ``submit``, ``next``, ``retry``: the commands that start runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptopt.cli.common import REPORTS, SWEEPS, reports_errors, write_report
from gptopt.cli.planning import (
    check_data,
    cluster_option,
    file_argument,
    max_option,
    overrides_argument,
    planned,
    recorded,
    show,
    tell,
    via_option,
    what_argument,
    yes_option,
)
from gptopt.state import ExitCode

if TYPE_CHECKING:
    from gptopt.sweep.plan import Plan

    Replan = Callable[[], Plan]

MANY_RUNS = 100
"""More than this are asked for, on a terminal."""


@dataclass(frozen=True)
class Launch:
    """How a person wants the runs of a plan to be started."""

    overrides: list[str]
    via: str
    max_runs: int
    dry_run: bool
    yes: bool

    def backend(self, found: Plan) -> str:
        """The back end of ``found``."""
        return found.cluster.backend if self.via == "auto" else self.via

    def go(self, found: Plan, replan: Replan | None = None) -> ExitCode:
        """Checks, tells, asks and starts; with ``replan`` also the stages it comes to know."""
        check_data(found)
        if self.dry_run:
            show(found)
            return ExitCode.DONE
        tell(found)
        _ask(found, self.yes)
        return _start(found, self.backend(found), self.overrides, replan)

    def replan(self, what: Path, *, chain: bool) -> Replan | None:
        """Plans ``what`` once more, with what was found meanwhile; None without ``chain``."""
        return partial(planned, what, self.overrides, self.max_runs) if chain else None


def launches(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the arguments of ``Launch``, as one, and ends errors with one message."""

    @overrides_argument
    @via_option
    @cluster_option
    @click.option("--dry-run", is_flag=True, help="Check and tell, start nothing.")
    @max_option
    @yes_option
    @reports_errors
    @wraps(command)
    def wrapped(
        overrides: tuple[str, ...],
        via: str,
        cluster: str | None,
        dry_run: bool,
        max_runs: int,
        yes: bool,
        **others: Any,
    ) -> None:
        extra = _with_backend(overrides, via, cluster)
        command(launch=Launch(extra, via, max_runs, dry_run, yes), **others)

    return wrapped


chain_option = click.option("--chain", is_flag=True, help="Then go on with the stages to come.")


@click.command("plan")
@file_argument
@overrides_argument
@cluster_option
@max_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@reports_errors
def plan_command(
    file: Path, overrides: tuple[str, ...], cluster: str | None, max_runs: int, as_json: bool
) -> None:
    """Check FILE with all its runs and tell what is to do; start nothing."""
    from gptopt.sweep.plan import plan
    from gptopt.sweep.status import stages_json

    found = plan(file, _with_cluster(overrides, cluster), max_runs=max_runs)
    check_data(found)
    if as_json:
        stages = {"stages": stages_json(found.stages)}
        click.echo(json.dumps(found.to_json() | stages, indent=1))
    else:
        show(found)


@click.command()
@file_argument
@launches
@chain_option
@click.option("--report", is_flag=True, help="Then write reports/<name of FILE>/ (local only).")
def submit(file: Path, launch: Launch, chain: bool, report: bool) -> None:
    """Start what FILE asks for and has no result yet.

    Of a file with stages: the stage whose turn it is. OVERRIDES are for all runs, as for
    run_hydra.py: training=tiny cluster.workers=4 +logging=wandb
    """
    found = planned(file, launch.overrides, launch.max_runs)
    if report and launch.backend(found) != "local":
        raise ValueError("--report waits for the runs; jobs in a queue are not waited for.")
    if chain and len(found.stages) == 1:
        raise ValueError(f"--chain: {file} has no $stages.")
    code = launch.go(found, launch.replan(file, chain=chain))
    if report and not launch.dry_run:
        runs = planned(file, launch.overrides, launch.max_runs).runs
        write_report([run.run for run in runs], REPORTS / found.name)
    sys.exit(int(code))


@click.command("next")
@what_argument
@launches
@click.option("--stage", type=click.IntRange(2), help="Which one; else the first unfinished one.")
@chain_option
def next_command(what: Path, launch: Launch, stage: int | None, chain: bool) -> None:
    """Start the next stage of FILE, once every run of the stages before it has a result."""
    found = planned(what, launch.overrides, launch.max_runs)
    if stage is not None and stage > len(found.stages):
        click.echo(f"{what} has {len(found.stages)} stages; there is no stage {stage}.")
        return
    unfinished = (one for one in found.stages if not one.is_known or one.missing)
    first = next(unfinished, found.stages[-1])
    if first.missing and first.number < (stage or 2):
        tell(found)
        raise ValueError(
            f"{what}: stage {first.number + 1} waits for stage {first.number}, of which"
            f" {first.missing} of {first.size} runs have no result. Nothing was started."
        )
    sys.exit(int(launch.go(found, launch.replan(what, chain=chain))))


@click.command()
@what_argument
@launches
@click.option("--class", "classes", multiple=True, help="Only failures of this class; repeatable.")
@click.option("--all", "every", is_flag=True, help="Those of every class, also if they would fail.")
def retry(what: Path, launch: Launch, classes: tuple[str, ...], every: bool) -> None:
    """Start runs again that ended without a result, where that may help.

    Without --class or --all: crash, hang, storage, node failure, preempted, time limit. Those of
    config, data and out of memory would fail again, and have to be named.
    """
    from gptopt.config.problems import nearest
    from gptopt.sweep.failures import CLASSES, RETRIED, failure_class

    known = [name for name in CLASSES if name != "diverged"]  # a result, kept
    for name in classes:
        if name not in known:
            message = f"--class {name}: there is no such class.{nearest(name, known)}"
            raise ValueError(f"{message} There are: {', '.join(known)}.")
    chosen = set(known if every else classes or RETRIED)
    found = recorded(what) if what.is_dir() else planned(what, launch.overrides, launch.max_runs)
    classes_of = {run.run: failure_class(run.state) for run in found.runs}
    failed = {run for run, name in classes_of.items() if name in chosen}
    stopped = sum(name == "stopped" for name in classes_of.values())
    if stopped and "stopped" not in chosen:
        click.echo(f"{stopped} stopped by a person, left alone: submit, or --class stopped")
    sys.exit(int(launch.go(found.only(failed))))


def _with_cluster(overrides: Sequence[str], cluster: str | None) -> list[str]:
    return [*overrides, *([f"cluster={cluster}"] if cluster else [])]


def _with_backend(overrides: Sequence[str], via: str, cluster: str | None) -> list[str]:
    """The overrides, with the cluster that a back end takes by default."""
    from gptopt.dispatch import slurm

    if via == "submitit" and not slurm.is_here():
        raise ValueError("--via submitit: there is no SLURM here (no sbatch on the PATH).")
    chosen = cluster or any(text.startswith("cluster=") for text in overrides)
    if not chosen and via != "local" and slurm.is_here():
        cluster = "slurm-disbatch" if via == "disbatch" else "slurm"
    return _with_cluster(overrides, cluster)


def _ask(found: Plan, yes: bool) -> None:
    """Asks before a large submission, or one beside jobs of the same sweep; on a terminal only."""
    count = len(found.to_do)
    waiting = sum(run.state.state == "pending" for run in found.runs)
    if yes or not count or not sys.stdin.isatty() or not (count > MANY_RUNS or waiting):
        return
    beside = f" beside {waiting} in the queue" if waiting else ""
    if not click.confirm(f"Start {count} runs{beside}?"):
        sys.exit(int(ExitCode.CONFIG))


def _start(found: Plan, backend: str, extra: Sequence[str], replan: Replan | None) -> ExitCode:
    """Starts what is to do; with ``replan`` also the stages that come to be known by it."""
    while True:
        code, is_queued = _start_stage(found, backend, extra, chain=replan is not None)
        known = sum(stage.is_known for stage in found.stages)
        if code != ExitCode.DONE or is_queued or replan is None or known == len(found.stages):
            return code
        found = replan()
        if sum(stage.is_known for stage in found.stages) == known:
            click.echo(f"stage {known} has runs without a result: nothing more is started")
            return ExitCode.CRASH
        check_data(found)
        tell(found)


def _start_stage(
    found: Plan, backend: str, extra: Sequence[str], *, chain: bool
) -> tuple[ExitCode, bool]:
    """Starts what is to do now; returns the exit code, and whether it waits in a queue."""
    from gptopt import dispatch
    from gptopt.dispatch import chain as chained
    from gptopt.sweep.plan import summary
    from gptopt.sweep.record import Record
    from gptopt.sweep.status import best_lines, bests

    if not found.to_do:
        return ExitCode.DONE, False
    record = Record.create(found, SWEEPS.absolute())
    click.echo(f"record: {record.directory}")
    try:
        submission = dispatch.backend(backend).submit(record, found.cluster)
        if submission.jobs:
            click.echo(submission.message)
            known = sum(stage.is_known for stage in found.stages)
            if chain and known < len(found.stages):
                again = ["sweep", "next", str(record.directory), "--stage", str(known + 1)]
                again += ["--chain", "--yes", "--via", backend, "--", *extra]
                job = chained.submit(record, found.cluster, submission.jobs, again)
                click.echo(f"job {job} submits stage {known + 1} when they have ended")
            return ExitCode.DONE, True
    except dispatch.SubmissionError as error:
        click.echo(error, err=True)
        return ExitCode.CRASH, False
    click.echo(summary(record.runs()))
    for line in best_lines(bests(found), found.stages):
        click.echo(line)
    if submission.failed:
        return ExitCode.CRASH, False
    return (ExitCode.RUN_AGAIN if submission.unfinished else ExitCode.DONE), False
