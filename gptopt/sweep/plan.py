"""Points of a sweep -> checked runs: what each is called, where it lives, how it stands.

Every point is composed and checked before anything is created, and all problems of all points
come in one report. What is to do follows from the run directories alone, so planning again
after some runs finished yields exactly the rest. So do the points of a later stage, once the
stage before has ended.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gptopt import layout
from gptopt.config.compose import compose
from gptopt.config.demand import Demand, demand
from gptopt.config.problems import ConfigError, Problem
from gptopt.config.schema import Cluster
from gptopt.config.survey import Sketch, survey
from gptopt.config.typed import parse, spelled_out
from gptopt.state import State
from gptopt.sweep import params
from gptopt.sweep.axes import Axis, axes
from gptopt.sweep.complaints import complaints, numbers
from gptopt.sweep.directories import RunDirectories
from gptopt.sweep.failures import is_held
from gptopt.sweep.generators import Point
from gptopt.sweep.keys import aliases
from gptopt.sweep.overrides import override, overrides
from gptopt.sweep.parts import Sweep
from gptopt.sweep.price import Cost, Price, cost, price
from gptopt.sweep.stages import Stage, walk

COMMAND_LINE = "command line"
SHOWN_NOTES = 10
MOST_CHECKED = 1000
"""Points that are looked at for further problems, where there are some already."""
JSON_VERSION = 1


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
        asked: Whether a person asked to start it, or not to; None: as its state tells.
        cost: What it takes; None where a record tells of it.
        demand: What it asks of its data; None where a record tells of it.
    """

    index: int
    overrides: list[str]
    frozen: list[str]
    run_id: str
    run: Path
    state: State
    asked: bool | None = None
    cost: Cost | None = None
    demand: Demand | None = None

    @property
    def is_to_do(self) -> bool:
        """Whether submitting the sweep starts this run."""
        if self.asked is not None:
            return self.asked
        ended = self.state.state in ("completed", "diverged", "running", "pending")
        return not ended and not is_held(self.state)


@dataclass(frozen=True)
class Plan:
    """A sweep, checked.

    Attributes:
        name: Of the sweep.
        file: Its JSON file.
        runs: The runs of all stages that are known.
        notes: For the person who asked.
        cluster: Settings of the jobs.
        stages: Every stage, also those that wait for an earlier one.
        axes: What varies between its runs.
    """

    name: str
    file: Path
    runs: list[PlannedRun]
    notes: list[str]
    cluster: Cluster
    stages: list[Stage]
    axes: list[Axis]

    @property
    def to_do(self) -> list[PlannedRun]:
        """The runs that submitting this sweep starts."""
        return [run for run in self.runs if run.is_to_do]

    def summary(self) -> str:
        """How many runs there are, and how they stand."""
        return summary(self.runs)

    def price(self) -> Price:
        """What the runs to do take, as far as the configuration and earlier runs tell."""
        completed = (run for run in self.runs if run.state.state == "completed")
        known = ((run.run, run.cost.shape) for run in completed if run.cost)
        parents = {os.path.dirname(run.run) for run in self.runs}
        costs = [
            run.cost.rest(run.run) if run.state.attempt else run.cost
            for run in self.to_do
            if run.cost
        ]
        return price(costs, known, sorted(parents))

    def lines(self) -> list[str]:
        """What varies, and what the runs to do take, for people."""
        return [*map(str, self.axes), *self.price().lines()]

    def to_json(self) -> dict[str, Any]:
        """The plan as strict JSON.

        ``counts``: number of runs by state. ``to_do``: how many a submission starts; ``price``:
        what these take, see ``Price``. ``axes``: what varies, see ``Axis.to_json``. ``runs``: each
        with its directory, override strings, and tokens and parameters where they are known.
        A further key is no new version; a key that goes, or means something else, is one.
        """
        return {
            "version": JSON_VERSION,
            "name": self.name,
            "file": str(self.file),
            "backend": self.cluster.backend,
            "counts": dict(sorted(Counter(run.state.state for run in self.runs).items())),
            "to_do": len(self.to_do),
            "axes": [axis.to_json() for axis in self.axes],
            "price": self.price().to_json(),
            "notes": self.notes,
            "runs": [
                {
                    "index": run.index,
                    "run_id": run.run_id,
                    "run": str(run.run),
                    "state": run.state.state,
                    "is_to_do": run.is_to_do,
                    "overrides": run.overrides,
                    "tokens": run.cost.tokens if run.cost else None,
                    "parameters": run.cost.parameters if run.cost else None,
                }
                for run in self.runs
            ],
        }

    def only(self, runs: set[Path]) -> Plan:
        """This plan with ``runs`` to do, and no others."""
        chosen = [replace(run, asked=run.run in runs) for run in self.runs]
        return replace(self, runs=chosen)

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
    again = Counter(run.state.state for run in runs if run.is_to_do)
    before = [f"{again[state]} {state} before" for state in tried if again[state]]
    to_do = sum(run.is_to_do for run in runs)
    left = f"{to_do} to do" if to_do else "nothing to do"
    words.append(f"{left} ({', '.join(before)})" if before else left)
    if held := sum(is_held(run.state) and not run.is_to_do for run in runs):
        words.append(f"{held} failed and held back")
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
    sweep, problems = params.read_what_can_be(file)
    if not problems and sweep.size > max_runs:
        message = f"{sweep.size:,} runs; raise the limit of {max_runs:,} with --max."
        raise ConfigError([Problem("", message, str(file))])
    parsed, unread = parse(spelled_out(extra), COMMAND_LINE)
    problems += unread
    if any(given.key_or_group == "force" for given in parsed):
        message = "+force redoes a single run: python run_hydra.py +force and its overrides."
        problems.append(Problem("force", message, COMMAND_LINE))
    for one in parsed:
        if (key := str(one.key_or_group)) in aliases():
            message = f"{key}: short names are for parameter files; here it is {aliases()[key]}."
            problems.append(Problem(key, message, COMMAND_LINE))
    given = {str(one.key_or_group) for one in parsed}
    if problems:
        raise ConfigError([*problems, *_wrong_values(sweep, given)])
    name = layout.safe_name(file.stem)
    places = _Frozen(name)
    checked: list[_Checked] = []

    def check(points: list[Point], number: int, is_known: bool) -> list[Path]:
        where = f"{file}, stage {number}" if sweep.stages > 1 else str(file)
        if len(points) > max_runs:
            message = f"more runs than the limit of {max_runs:,}; raise it with --max."
            raise ConfigError([Problem("", message, where)])
        texts = [_texts(point, given, extra) for point in points]
        seen = survey(texts, origin=where, measures=(places, cost, demand))
        if seen.problems:
            raise ConfigError(complaints(seen, sweep, where))
        sketches = [sketch for sketch in seen.sketches if sketch is not None]
        if is_known:
            checked.extend(_Checked(number, *both) for both in zip(texts, sketches, strict=True))
        return [sketch.run for sketch in sketches]

    stages = walk(sweep, check, most=max_runs + 1)
    first = compose(checked[0].overrides, origin=str(file))
    assert first.run_id == checked[0].sketch.run_id, "a survey composes as Hydra does"
    runs, notes = _merge(checked, str(file))
    return Plan(name, file, runs, notes, first.cluster, stages, axes(sweep, given))


def _wrong_values(sweep: Sweep, given: Collection[str]) -> list[Problem]:
    """What is wrong with the values in a file that could not be read as a whole.

    Only of keys that it says: all else, also that there is no such key, may come from what could
    not be read, such as a misspelt ``optimizer``.
    """
    origin = str(sweep.file)
    points = islice(sweep.points(), MOST_CHECKED)
    seen = survey([_texts(point, given, ()) for point in points], origin=origin)
    said = {path for part in sweep.parts for leaf in part.first for path in leaf.said} - {*given}
    own = {
        problem: runs
        for problem, runs in seen.problems.items()
        if problem.key in said and "no such key" not in problem.message
    }
    return complaints(replace(seen, problems=own, not_looked_at=0), sweep, origin)


class _Checked(NamedTuple):
    """A point that can be run."""

    stage: int
    overrides: list[str]
    sketch: Sketch


def _texts(point: Point, given: Collection[str], extra: Sequence[str]) -> list[str]:
    """The overrides of a point; what the command line gives wins."""
    if given:
        point = {key: value for key, value in point.items() if key.lstrip("+") not in given}
    return [*overrides(point, params.groups()), *extra]


def _merge(checked: Sequence[_Checked], file: str) -> tuple[list[PlannedRun], list[str]]:
    """One run per directory; a note where several points of a stage mean the same run."""
    directories = RunDirectories()
    runs: dict[str, PlannedRun] = {}
    same: dict[tuple[int, str], list[int]] = {}
    for index, (stage, asked, sketch) in enumerate(checked):
        run = str(sketch.run)
        same.setdefault((stage, run), []).append(index)
        if run not in runs:
            frozen, costs, asks = sketch.measured
            state = directories.state(sketch.run)
            runs[run] = PlannedRun(
                index, asked, frozen, sketch.run_id, sketch.run, state, cost=costs, demand=asks
            )
        elif runs[run].run_id != sketch.run_id:
            both = f"runs {runs[run].index} and {index} would both write {run}."
            message = f"{both} Add what differs to paths.run_name."
            raise ConfigError([Problem("paths.run_name", message, file)])
    repeated = [indices for indices in same.values() if len(indices) > 1]
    notes = [
        f"{numbers(indices)} are the same run: it is done once."
        for indices in repeated[:SHOWN_NOTES]
    ]
    if len(repeated) > SHOWN_NOTES:
        notes.append(f"{len(repeated) - SHOWN_NOTES:,} further runs are named more than once.")
    return list(runs.values()), notes


class _Frozen:
    """The overrides that keep a job from depending on where it starts; a measure of a survey."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep

    def __call__(self, raw: Mapping[str, Any]) -> list[str]:
        paths = raw["paths"]
        places = {"output_dir": paths["output_dir"], "data_root": paths["data_root"]}
        absolute = {key: str(Path(place).expanduser().absolute()) for key, place in places.items()}
        return [
            override("paths.sweep", paths["sweep"] or self.sweep),
            *(override(f"paths.{key}", place) for key, place in absolute.items()),
        ]
