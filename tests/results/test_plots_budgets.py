from __future__ import annotations

import math
from pathlib import Path

import pytest

from gptopt.results import Runs, load
from gptopt.results.plots import (
    best_of_k,
    cost_and_quality,
    layer_traces,
    measures,
    optimizer_cost,
    performance_profile,
    speed_up,
)

from .rundirs import TOKENS_PER_STEP, configure, eval_row, start_row, train_row, write_run
from .test_plots import lines, part, points


def write_curve(
    root: Path, optimizer: str, losses: dict[int, float], *, lr: float = 0.1, steps: int = 200
) -> None:
    """A completed run of ``steps`` with these validation losses by step."""
    config = configure(optimizer, lr, 0, training__training_params__max_steps=steps)
    rows = [start_row(1, 0), *(eval_row(step, loss) for step, loss in losses.items())]
    write_run(root / f"{optimizer}-{lr}-{steps}", config, [rows])


def test_best_of_k_is_the_mean_over_all_choices_of_k_trials(tmp_path: Path) -> None:
    for lr, loss in ((0.1, 3.0), (0.2, 2.0), (0.4, 4.0)):
        write_curve(tmp_path, "adamw", {200: loss}, lr=lr)
    plot = best_of_k(load(tmp_path))
    # one: (3 + 2 + 4) / 3; two: 2, 3 and 2 are the lowest of the three pairs
    assert plot.data["loss"].tolist() == pytest.approx([3.0, 7 / 3, 2.0])
    assert [x for x, _ in points(lines(plot)["adamw"])] == [1, 2, 3]


def test_a_profile_is_the_share_of_workloads_within_a_factor(tmp_path: Path) -> None:
    for steps in (100, 200):
        write_curve(tmp_path, "adamw", {50: 4.0, steps: 2.0}, steps=steps)
        write_curve(tmp_path, "lion", {steps: 2.5}, steps=steps)
    write_curve(tmp_path, "muon", {50: 1.9, 100: 1.8}, steps=100)  # at 50 of 100: adamw at 2
    write_curve(tmp_path, "muon", {150: 2.1, 200: 2.0}, steps=200)  # as late as adamw
    shares = performance_profile(load(tmp_path)).data.set_index("tau")
    assert shares.loc[1.0].to_dict() == {"muon": 1.0, "adamw": 0.5, "lion": 0.0}
    assert shares.loc[1.99, "adamw"] == 0.5
    assert shares.loc[2.0].to_dict() == {"muon": 1.0, "adamw": 1.0, "lion": 0.0}


def test_the_baseline_solves_its_own_workloads(real: Runs) -> None:
    assert (performance_profile(real).data["adamw"] == 1).all()


def test_speed_up_is_read_off_the_law_of_the_baseline(tmp_path: Path) -> None:
    def law(steps: float) -> float:
        return 5 * (steps * TOKENS_PER_STEP / 1e5) ** -0.4 + 1.5

    for steps in (100, 200, 400, 800):
        write_curve(tmp_path, "adamw", {steps: law(steps)}, steps=steps)
        write_curve(tmp_path, "muon", {steps: law(1.4 * steps)}, steps=steps)
    data = speed_up(load(tmp_path)).data
    gains = data.groupby("optimizer")["speed_up"].agg(["min", "max"])
    assert gains.loc["muon"].tolist() == pytest.approx([1.4, 1.4], rel=1e-3)
    assert gains.loc["adamw"].tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    assert data["tokens"].max() == 800 * TOKENS_PER_STEP


def test_two_budgets_are_no_law(tmp_path: Path) -> None:
    for steps in (100, 200):
        write_curve(tmp_path, "adamw", {steps: 300.0 / steps}, steps=steps)
    plot = speed_up(load(tmp_path))
    assert plot.data.empty
    assert plot.render("png").startswith(b"\x89PNG")


def test_costs_are_medians_without_the_first_row(tmp_path: Path) -> None:
    times = [(1, 900.0, 500.0), (10, 30.0, 2.0), (20, 20.0, 3.0), (30, 40.0, 4.0)]
    rows = [start_row(1, 0)]
    rows += [train_row(s, 2.0, step_ms=whole, optimizer_ms=own) for s, whole, own in times]
    rows.append(eval_row(30, 2.0, optimizer_state_bytes=160_000 * 8))
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [rows])
    plot = optimizer_cost(load(tmp_path))
    assert plot.data.iloc[0].to_dict() == {
        "optimizer": "adamw",
        "step_ms": 30.0,
        "optimizer_ms": 3.0,
        "bytes_per_parameter": 8.0,
    }
    assert [axes.get_xlabel() for axes in plot.figure.axes] == [
        "ms per step",
        "bytes of state per parameter",
    ]


def test_a_run_logs_the_size_of_its_optimizer_state(real: Runs) -> None:
    first = next(iter(real.workloads().values()))
    sizes = optimizer_cost(first).data.set_index("optimizer")["bytes_per_parameter"]
    assert 8 <= sizes["adamw"] < 8.1  # two float32 moments, and a step counter per tensor
    assert 4 < sizes["muon-momo"] < 8  # one for matrices, two for the rest


def test_cost_and_quality_has_a_point_for_each_best_trial(sweep: Runs) -> None:
    plot = cost_and_quality(part(sweep))
    for row in plot.data.itertuples():
        ((x, y),) = points(lines(plot)[str(row.optimizer)])
        assert (x, y) == (row.seconds, row.mean)
    # rundirs: 200 steps of 0.05 s, times the pace of each optimizer
    seconds = plot.data.set_index("optimizer")["seconds"].to_dict()
    assert seconds == pytest.approx({"adamw": 10, "muon": 12, "sgd": 9, "dap-ns-nadam": 24})


def test_layers_have_a_panel_per_optimizer_and_a_line_per_parameter(real: Runs) -> None:
    budgets = list(real.workloads().values())
    middle = next(part for part in budgets if len(part.runs) > 4)
    assert {"relative_update", "update_rms", "step_size"} <= set(measures(middle))
    plot = layer_traces(middle, measure="relative_update")
    panels = [axes for axes in plot.figure.axes if axes.get_title()]
    assert {axes.get_title() for axes in panels} == {"adamw", "muon-momo"}
    assert plot.data.groupby("optimizer")["run_id"].nunique().eq(1).all()
    run_id = plot.data["run_id"].iloc[0]
    logged = real.diagnostics[real.diagnostics["run_id"] == run_id]
    name = "blocks.0.attention.query.weight"
    expected = logged.loc[logged["name"] == f"{name}/relative_update", ["step", "value"]]
    drawn = {line.get_gid(): line for axes in panels for line in axes.lines}
    line = drawn[f"{plot.data['optimizer'].iloc[0]} {name}"]
    assert points(line) == [tuple(row) for row in expected.to_numpy()]
    assert len(expected) == 4
    assert plot.data.loc[plot.data["name"] == name, "depth"].eq(0).all()
    assert not plot.data["name"].isin(["min", "median", "max"]).any()


def test_a_number_of_the_rule_alone_is_one_line(real: Runs) -> None:
    middle = next(part for part in real.workloads().values() if len(part.runs) > 4)
    data = layer_traces(middle, measure="step_size").data
    assert set(data["optimizer"]) == {"muon-momo"}
    assert data["name"].nunique() == 1
    assert data["depth"].map(math.isnan).all()
