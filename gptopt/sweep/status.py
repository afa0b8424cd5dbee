"""How a sweep stands, read from its run directories: a line per run, the stages, the best so far.

SLURM is no source of it; where its queue is known, the places in it are shown beside.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gptopt.config.problems import show
from gptopt.state import read_state
from gptopt.sweep import params
from gptopt.sweep.edges import Best, best, short
from gptopt.sweep.failures import HELD, Failure, failure, is_held
from gptopt.sweep.generators import plain
from gptopt.sweep.listing import differing
from gptopt.sweep.plan import Plan, PlannedRun
from gptopt.sweep.progress import Glimpse, duration, glimpse
from gptopt.sweep.stages import SEEDS, Stage, loss_of

WORDS = 100  # of a failure, in a line


@dataclass(frozen=True)
class Standing:
    """How one run stands; ``place`` is that in SLURM's queue, in its words."""

    run: PlannedRun
    progress: Glimpse
    val_loss: float | None
    failure: Failure | None
    place: str

    def to_json(self) -> dict[str, Any]:
        """What a program may want to know."""
        state, seen = self.run.state, self.progress
        return {
            "index": self.run.index,
            "run": str(self.run.run),
            "run_id": self.run.run_id,
            "overrides": self.run.overrides,
            "state": state.state,
            "step": max(seen.step, state.step),
            "max_steps": seen.max_steps or state.max_steps,
            "left_s": seen.left_s if state.state == "running" else None,
            "train_loss": seen.train_loss,
            "val_loss": self.val_loss if state.state == "completed" else None,
            "failure": asdict(self.failure) if self.failure else None,
            "place": self.place or None,
        }


def standings(
    runs: Sequence[PlannedRun], places: Mapping[Path, str], refused: Mapping[Path, Failure]
) -> list[Standing]:
    """How each run stands now.

    Args:
        runs: As they were planned; what a queue is known to hold stays "pending".
        places: Run directory -> its place in the queue, for those that have one.
        refused: Run directory -> why it never came to be.
    """
    found = []
    for run in runs:
        state = read_state(run.run)
        is_waiting = run.run in places and state.state not in ("completed", "diverged", "running")
        now = replace(run, state=replace(state, state="pending") if is_waiting else state)
        why = None if is_waiting else failure(run.run)
        if now.state.state == "new":
            why = refused.get(run.run)
        place = places.get(run.run, "") if is_waiting else ""
        found.append(Standing(now, glimpse(run.run), loss_of(run.run), why, place))
    return found


def table(found: Sequence[Standing]) -> list[str]:
    """A line per run: number, state, step, time left, losses, and what not all runs share."""
    head = f"{'run':>4}  {'state':<11} {'step':>13} {'left':>8} {'train_loss':>10} {'val_loss':>8}"
    lines = [head]
    for one, settings in zip(found, differing([one.run for one in found]), strict=True):
        facts = one.to_json()
        step = f"{facts['step']}/{facts['max_steps']}" if facts["max_steps"] else ""
        left = "" if facts["left_s"] is None else duration(facts["left_s"])
        losses = (facts["train_loss"], facts["val_loss"])
        train, val = ("" if loss is None else f"{loss:.4f}" for loss in losses)
        why = f"  [{one.place}]" if one.place else ""
        if one.failure:
            why = f"  [{one.failure.name}: {' '.join(one.failure.words.split())[:WORDS]}]"
        lines.append(
            f"{facts['index']:>4}  {facts['state']:<11} {step:>13} {left:>8} {train:>10} {val:>8}"
            f"  {settings}{why}"
        )
    return lines


def stage_lines(stages: Sequence[Stage]) -> list[str]:
    """A line per stage, where there are several."""
    lines = []
    for stage in stages if len(stages) > 1 else []:
        title = f"stage {stage.number} of {len(stages)}: {stage.size} runs"
        if stage.is_known:
            words = f"{stage.missing} without a result" if stage.missing else "all have a result"
            lines.append(f"{title}, {words}")
        else:
            lines.append(f"{title} at most, waits for stage {stage.number - 1}")
    return lines


def bests(planned: Plan) -> list[Best]:
    """The best settings of every stage that is known."""
    sweep = params.read(planned.file)
    return [one for stage in planned.stages if stage.is_known for one in best(sweep, stage)]


def best_lines(found: Sequence[Best], stages: Sequence[Stage]) -> list[str]:
    """A line for each best setting, for what speaks against it, and for each axis that it ends."""
    lines = []
    for one in found:
        stage = stages[one.stage - 1]
        points = [point for of_part in stage.points for point in of_part]
        chosen = one.setting.points[0]
        varied = {
            key: value
            for key, value in chosen.items()
            if plain(key) not in SEEDS and any(point.get(key) != value for point in points)
        }
        words = " ".join(f"{short(plain(key))}={show(value)}" for key, value in varied.items())
        title = f"best of stage {one.stage}" if len(stages) > 1 else "best"
        count = len(one.setting.losses)
        mean = f", mean of {count} runs" if count > 1 else ""
        runs = "1 run has" if one.missing == 1 else f"{one.missing} runs have"
        so_far = f"; so far, {runs} no result" if one.missing else ""
        lines.append(
            f"{title}: {words or 'all alike'}: val_loss {one.setting.loss:.4f}{mean}{so_far}"
        )
        lines += [f"  ! {one.caveat}"] * bool(one.caveat)
        lines += [f"  {edge}" for edge in one.edges]
    return lines


def held_lines(runs: Sequence[PlannedRun], what: Path) -> list[str]:
    """Which runs would fail again as they are, and the command that starts them all the same."""
    failed = [failure(run.run) for run in runs if is_held(run.state) and not run.is_to_do]
    counts = Counter(one.name for one in failed if one)
    return [
        f"{counts[name]} failed ({name}) and would fail again; repaired?"
        f" gptopt sweep retry {shlex.quote(str(what))}"
        f" --class {shlex.quote(name)}"
        for name in HELD
        if counts[name]
    ]


def stages_json(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The stages for a program."""
    return [
        {
            "number": stage.number,
            "size": stage.size,
            "is_known": stage.is_known,
            "missing": stage.missing if stage.is_known else None,
        }
        for stage in stages
    ]


def bests_json(found: Sequence[Best]) -> list[dict[str, Any]]:
    """The best settings for a program; a loss is null where every setting diverged."""
    return [
        {
            "stage": one.stage,
            "group": one.group,
            "setting": one.setting.points[0],
            "val_loss": one.setting.loss if math.isfinite(one.setting.loss) else None,
            "runs": len(one.setting.losses),
            "missing": one.missing,
            "caveat": one.caveat or None,
            "edges": [asdict(edge) for edge in one.edges],
        }
        for one in found
    ]
