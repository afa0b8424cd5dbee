"""Points of a sweep -> checked runs: what each is called, where it lives, how it stands.

Every point is composed and checked before anything is created, and all problems of all points
come in one report. What is to do follows from the run directories alone, so planning again
after some runs finished yields exactly the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptopt import layout
from gptopt.config.compose import compose_all, parse, spelled_out
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError, Problem
from gptopt.config.schema import Cluster, Config
from gptopt.state import State, read_state
from gptopt.sweep import params
from gptopt.sweep.overrides import override, overrides

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        index: Its number among the points of the file, from 0.
        overrides: Hydra override strings, complete but for what ``frozen`` adds.
        frozen: Further overrides: the name of the sweep, and paths made absolute, so that a
            job means the same directories wherever it starts.
        run_id: Its identity.
        run: Its directory.
        state: As the directory tells it.
    """

    index: int
    overrides: list[str]
    frozen: list[str]
    run_id: str
    run: Path
    state: State

    @property
    def is_to_do(self) -> bool:
        """Whether submitting the sweep starts this run."""
        return self.state.state not in ("completed", "diverged", "running", "pending")


@dataclass(frozen=True)
class Plan:
    """A sweep, checked. ``notes`` are for the person who asked."""

    name: str
    file: Path
    runs: list[PlannedRun]
    notes: list[str]
    cluster: Cluster

    @property
    def to_do(self) -> list[PlannedRun]:
        """The runs that submitting this sweep starts."""
        return [run for run in self.runs if run.is_to_do]

    def summary(self) -> str:
        """How many runs there are, and how they stand."""
        return summary(self.runs)

    def with_pending(self, runs: set[Path]) -> Plan:
        """This plan, knowing that a queue holds jobs for ``runs``: they wait, or start up."""
        changed = [
            replace(run, state=replace(run.state, state="pending"))
            if run.is_to_do and run.run in runs
            else run
            for run in self.runs
        ]
        return replace(self, runs=changed)


def summary(runs: Sequence[PlannedRun]) -> str:
    """Such as ``20 runs: 12 completed, 1 diverged, 2 running, 5 to do (1 failed before)``."""
    counts = Counter(run.state.state for run in runs)
    ended = ("completed", "diverged", "running", "pending")
    words = [f"{counts[state]} {state}" for state in ended if counts[state]]
    tried = ("failed", "interrupted", "preempted")
    before = [f"{counts[state]} {state} before" for state in tried if counts[state]]
    to_do = sum(run.is_to_do for run in runs)
    left = f"{to_do} to do" if to_do else "nothing to do"
    words.append(f"{left} ({', '.join(before)})" if before else left)
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(words)}"


def plan(file: Path, extra: Sequence[str], *, max_runs: int) -> Plan:
    """Reads a sweep file and checks all its runs.

    Args:
        file: The JSON file.
        extra: Overrides for all runs, as typed on a command line; they win over the file.
        max_runs: More points than this are refused.

    Raises:
        ConfigError: With every problem of the file and of its runs.
    """
    sweep = params.read(file)
    if sweep.size > max_runs:
        message = f"{sweep.size:,} runs; raise the limit of {max_runs:,} with --max."
        raise ConfigError([Problem("", message, str(file))])
    parsed, problems = parse(spelled_out(extra), COMMAND_LINE)
    if any(given.key_or_group == "force" for given in parsed):
        message = "+force redoes a single run: python run_hydra.py +force and its overrides."
        problems.append(Problem("force", message, COMMAND_LINE))
    if problems:
        raise ConfigError(problems)
    given = {str(one.key_or_group) for one in parsed}
    points = [
        {key: value for key, value in point.items() if key.lstrip("+") not in given}
        for point in sweep.points()
    ]
    texts = [[*overrides(point, params.groups()), *extra] for point in points]
    try:
        configs = compose_all(texts, origin=str(file))
    except ConfigError as error:
        raise ConfigError(_with_hints(error.problems, sweep)) from None
    runs, notes = _merge(texts, configs, layout.safe_name(file.stem), str(file))
    return Plan(layout.safe_name(file.stem), file, runs, notes, configs[0].cluster)


def _merge(
    texts: list[list[str]], configs: list[Config], name: str, file: str
) -> tuple[list[PlannedRun], list[str]]:
    """One run per directory; a note where several points mean the same run."""
    runs: dict[Path, PlannedRun] = {}
    same: dict[Path, list[int]] = {}
    for index, (asked, config) in enumerate(zip(texts, configs, strict=True)):
        run = run_directory(config)
        same.setdefault(run, []).append(index)
        if run not in runs:
            frozen = _frozen(config, name)
            runs[run] = PlannedRun(index, asked, frozen, config.run_id, run, read_state(run))
        elif runs[run].run_id != config.run_id:
            both = f"runs {runs[run].index} and {index} would both write {run}."
            message = f"{both} Add what differs to paths.run_name."
            raise ConfigError([Problem("paths.run_name", message, file)])
    notes = [
        f"runs {', '.join(map(str, indices))} are the same run: it is done once."
        for indices in same.values()
        if len(indices) > 1
    ]
    return list(runs.values()), notes


def _frozen(config: Config, name: str) -> list[str]:
    paths = config.paths
    places = {"output_dir": paths.output_dir, "data_root": paths.data_root}
    absolute = {key: str(Path(place).expanduser().absolute()) for key, place in places.items()}
    return [
        override("paths.sweep", paths.sweep or name),
        *(override(f"paths.{key}", place) for key, place in absolute.items()),
    ]


def _with_hints(problems: list[Problem], sweep: params.Sweep) -> list[Problem]:
    """Adds what a sweep file has to do with it, where a problem is of the usual kinds."""
    said = {key.lstrip("+"): choices for axes in sweep.grids for key, choices in axes.items()}
    hinted = []
    for problem in problems:
        choices, hint = said.get(problem.key, []), ""
        is_plain = len(choices) > 1 and not any(isinstance(choice, list) for choice in choices)
        if is_plain and ("takes [" in problem.message or "takes a list" in problem.message):
            hint = f" A list is swept; for one list write [[{', '.join(map(str, choices))}]]."
        elif choices and "no such key" in problem.message and len(said.get("optimizer", [])) > 1:
            hint = f" The keys of one optimizer go into its own block of {params.EACH}."
        hinted.append(replace(problem, message=problem.message + hint))
    return hinted
