"""Trees of runs that know more or less of themselves, drawn at random, pass through everything."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptopt import layout
from gptopt.results import Runs, load, plots, table
from gptopt.results.compare import compare
from gptopt.results.diff import diff
from gptopt.results.fairness import warnings
from gptopt.results.importers.write import _nested
from gptopt.results.next import propose
from gptopt.results.report import _drawn
from gptopt.results.runs import records
from gptopt.results.show import show
from gptopt.results.stats import best_trials, outcome, trials
from gptopt.results.watch import lines

from .rundirs import eval_row, start_row, train_row, write_run

OPTIMIZERS = ["adamw", "muon", "plugin/näme_2"]
SETTINGS: dict[str, list[Any]] = {
    "optimizer.optimizer_params.lr": [None, "auto", 0.0, 0.001, 0.002, 0.004],
    "optimizer.optimizer_params.weight_decay": [None, 0, 0.1, 0.2],
    "optimizer.optimizer_params.aux.lr": [0.01, 0.02],
    "optimizer.optimizer_params.betas": [[0.9, 0.95], [0.9, 0.99]],
    "training.training_params.seed": [0, 1, 2, None],
    "model.config.vocab_size": [256],
    "derived.max_steps": [40],
    "derived.total_tokens": [None, 40_960, 81_920],
    "paths.run_name": ["same", "a|b\nc", "x" * 200],
}
STATES = ["completed", "completed", "completed", "diverged", "failed", "interrupted"]


def write_tree(root: Path, rng: random.Random) -> None:
    """Runs that share what they know and differ in its values, some without a curve."""
    known = {key: values for key, values in SETTINGS.items() if rng.random() < 0.7}
    told = [name for name in ("seconds", "tokens", "step_ms") if rng.random() < 0.6]
    for number in range(rng.randint(1, 8)):
        config = {key: rng.choice(values) for key, values in known.items()}
        config["optimizer.optimizer_params.name"] = rng.choice(OPTIMIZERS)
        config["derived.run_id"] = f"{number:032x}"
        rows: list[dict[str, Any]] = [start_row(1, 0)]
        final = rng.choice([2.0, 2.0, 2.5, "nan", "inf"])
        for step in range(10, rng.choice([0, 10, 40, 40]) + 1, 10):
            rows.append(train_row(step, 3.0 if step < 40 else final, step_ms=5.0))
            if rng.random() < 0.8:
                rows.append(eval_row(step, 3.0 if step < 40 else final))
        kept = [{k: v for k, v in row.items() if k not in untold(told)} for row in rows]
        write_run(root / str(number), _nested(config), [kept], state=rng.choice(STATES))
        if rng.random() < 0.5:
            (root / str(number) / layout.PROVENANCE).write_text(json.dumps({"host": "a"}))
        if rng.random() < 0.5:
            typed = yaml.safe_dump([f"{key}={value}" for key, value in config.items()])
            (root / str(number) / layout.OVERRIDES).write_text(typed)


def untold(told: list[str]) -> set[str]:
    return {"seconds", "tokens", "step_ms"}.difference(told)


@pytest.mark.filterwarnings("error::UserWarning", "error::FutureWarning")
@pytest.mark.parametrize("seed", range(10))
def test_no_run_is_lost_and_nothing_ends_in_an_error(tmp_path: Path, seed: int) -> None:
    write_tree(tmp_path, random.Random(seed))
    found = load(tmp_path)
    count = len(list(tmp_path.iterdir()))
    assert len(found.runs) == len(table(tmp_path)) == count
    parts = found.workloads()
    assert sum(len(part.runs) for part in parts.values()) == count
    said = [*lines(found), *propose(found).reasons, *told_of_pairs(found)]
    for title, part in parts.items():
        best = best_trials(trials(part.runs))
        assert_best_is_lowest(part, records(best))
        said += [title, *warnings(part.runs)]
        _drawn(part, best)
        for a, b in itertools.combinations(set(part.runs["optimizer"]), 2):
            said += told_of_rivals(part, a, b)
    plots.performance_profile(found)
    plots.speed_up(found)
    assert not [line for line in said if "nan" in line.replace("name", "")]


def told_of_pairs(found: Runs) -> list[str]:
    alone = [found.only(found.runs["run_id"] == run_id) for run_id in found.runs["run_id"]]
    shown = [line for one in alone for line in show(one) if "provenance" not in line]
    return shown + [line for one in alone for line in diff(alone[0], one)]


def told_of_rivals(part: Runs, a: str, b: str) -> list[str]:
    sides = [(name, part.only(part.runs["optimizer"] == name)) for name in (a, b)]
    ended = [outcome(side.runs).notna().any() for _, side in sides]
    if not all(ended):
        with pytest.raises(ValueError, match="has ended with a validation loss"):
            compare(*sides, compared=(), target=None, cost="step")
        return []
    return compare(*sides, compared=(), target=None, cost="step").lines()


def assert_best_is_lowest(part: Runs, best: list[dict[str, Any]]) -> None:
    """Of an optimizer with a finite trial the best one is finite, and none with one run is lower
    than it unless that is told."""
    for row in best:
        mine = part.runs[part.runs["optimizer"] == row["optimizer"]]
        means = outcome(mine).groupby(mine["trial"]).mean().dropna()
        finite = means[means < math.inf]
        assert math.isfinite(row["mean"]) == bool(len(finite))
        assert not len(finite) or row["caveat"] or row["mean"] == pytest.approx(finite.min())
