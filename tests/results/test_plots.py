from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.lines import Line2D

from gptopt.config import catalogue
from gptopt.results import Runs, load
from gptopt.results.plots import best_per_optimizer, final_loss, loss_curves, tuned_curves
from gptopt.results.style import KNOWN, Plot, look

from .rundirs import configure, eval_row, start_row, train_row, write_run


def lines(plot: Plot) -> dict[str, Line2D]:
    return {line.get_gid(): line for line in plot.figure.axes[0].lines if line.get_gid()}


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


def part(sweep: Runs) -> Runs:
    (only,) = sweep.workloads().values()
    return only


@pytest.mark.parametrize("x", ["step", "tokens", "seconds"])
@pytest.mark.parametrize("loss", ["val_loss", "train_loss"])
def test_every_run_is_a_line_of_its_logged_numbers(sweep: Runs, x: Any, loss: Any) -> None:
    drawn = lines(loss_curves(part(sweep), x=x, loss=loss))
    for run_id in sweep.runs["run_id"]:
        logged = sweep.of(run_id).dropna(subset=loss)
        assert points(drawn[run_id]) == list(zip(logged[x], logged[loss], strict=True))


def test_the_bold_line_is_the_mean_over_the_seeds_of_the_best_trial(sweep: Runs) -> None:
    plot = loss_curves(part(sweep), x="seconds", loss="val_loss")
    runs = sweep.runs
    best = runs[(runs["optimizer"] == "muon") & (runs["lr"] == 0.04)]
    first, second = (
        sweep.of(run_id).dropna(subset="val_loss")
        for run_id in best.loc[best["state"] == "completed", "run_id"]
    )
    mean = lines(plot)["mean muon"]
    assert mean.get_xdata() == pytest.approx(first["seconds"].to_numpy())
    losses = np.stack([first["val_loss"], second["val_loss"]])
    assert mean.get_ydata() == pytest.approx(losses.mean(axis=0))
    assert plot.data.loc[plot.data["best"], "lr"].isin([0.04, 0.008, 0.003, 3.0]).all()


def test_seeds_that_logged_other_steps_are_averaged_where_they_meet(tmp_path: Path) -> None:
    for seed, steps in enumerate([(10, 20, 40), (20, 30, 40)]):
        rows = [start_row(1, 0), *(eval_row(step, 3.0 + seed - step / 100) for step in steps)]
        write_run(tmp_path / f"{seed}", configure("adamw", 0.1, seed), [rows])
    mean = lines(loss_curves(load(tmp_path), x="step", loss="val_loss"))["mean adamw"]
    assert dict(points(mean)) == pytest.approx({20: 3.3, 40: 3.1})


def test_a_run_that_blows_up_does_not_squash_the_others(sweep: Runs) -> None:
    assert sweep.metrics["val_loss"].max() > 10
    assert sweep.runs.loc[sweep.runs["state"] == "completed", "final_val_loss"].max() > 7
    for plot in (loss_curves(part(sweep), x="step", loss="val_loss"), final_loss(part(sweep))):
        assert 2.0 < plot.figure.axes[0].get_ylim()[1] < 4.5


def test_the_best_per_optimizer_are_ordered_by_their_mean(sweep: Runs) -> None:
    plot = best_per_optimizer(part(sweep))
    labels = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert labels == ["muon, lr 0.04", "dap-ns-nadam, lr 0.003", "adamw, lr 0.008", "sgd, lr 3"]
    shown = [float(lines(plot)[row.optimizer].get_xdata()[0]) for row in plot.data.itertuples()]
    assert shown == plot.data["mean"].tolist() == sorted(shown)


def test_figures_of_runs_without_results_are_empty_but_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "new", configure("adamw", 0.1, 0), [], state="new")
    lost = [start_row(1, 0), eval_row(10, "nan")]
    write_run(tmp_path / "lost", configure("adamw", 0.1, 1), [lost], state="diverged")
    found = load(tmp_path)
    for plot in (
        loss_curves(found, x="tokens", loss="val_loss"),
        final_loss(found),
        best_per_optimizer(found),
    ):
        assert plot.render("png").startswith(b"\x89PNG")


def test_an_optimizer_looks_the_same_beside_any_other(sweep: Runs) -> None:
    alone = sweep.only(sweep.runs["optimizer"] == "muon")
    together = lines(final_loss(part(sweep)))["mean muon"]
    assert lines(final_loss(alone))["mean muon"].get_color() == together.get_color()


def test_optimizers_that_exist_look_different_and_the_baseline_is_black() -> None:
    names = [entry.params["name"] for entry in catalogue.find().entries.values()]
    assert set(names) <= {name for names in KNOWN for name in names}
    looks = [(look(name).colour, look(name).dash) for name in names]
    assert len(set(looks)) == len(names)
    assert look("adamw").colour == "#000000"
    assert look("of-a-plugin") == look("of-a-plugin")


def test_tuned_curves_are_the_means_of_the_best_trials_in_their_order(sweep: Runs) -> None:
    plot = tuned_curves(part(sweep), x="tokens", loss="val_loss")
    assert list(dict.fromkeys(plot.data["optimizer"])) == ["muon", "dap-ns-nadam", "adamw", "sgd"]
    muon = plot.data[plot.data["optimizer"] == "muon"]
    runs = sweep.runs[(sweep.runs["optimizer"] == "muon") & (sweep.runs["lr"] == 0.04)]
    ends = runs.loc[runs["state"] == "completed", "final_val_loss"]
    assert muon["loss"].iloc[-1] == pytest.approx(ends.mean())
    assert (muon["low"].iloc[-1], muon["high"].iloc[-1]) == (ends.min(), ends.max())
    assert points(lines(plot)["mean muon"]) == list(zip(muon["x"], muon["loss"], strict=True))


def test_flops_are_six_per_parameter_and_token(sweep: Runs) -> None:
    plot = tuned_curves(part(sweep), x="flops", loss="val_loss")
    last = plot.data[plot.data["optimizer"] == "adamw"].iloc[-1]
    assert last["x"] == 6 * 130_000 * 200 * 1024  # run.json: 130,000 without embeddings


def test_smoothing_is_a_mean_of_rows_up_to_the_point_and_is_said(tmp_path: Path) -> None:
    rows = [start_row(1, 0), *(train_row(step, loss) for step, loss in ((1, 4.0), (2, 2.0)))]
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [[*rows, train_row(3, 1.0)]])
    found = load(tmp_path)
    plot = loss_curves(found, x="step", loss="train_loss", smooth=2)
    (run_id,) = found.runs["run_id"]
    assert points(lines(plot)[run_id]) == [(1, 4.0), (2, 3.0), (3, 1.5)]
    assert "mean of 2 logged rows" in plot.caption
    assert "not smoothed" in loss_curves(found, x="step", loss="train_loss").caption


def test_the_lowest_loss_that_there_can_be_is_a_line_inside_the_axes(real: Runs) -> None:
    first = next(iter(real.workloads().values()))
    floor = real.runs["run.best_loss"].iloc[0]
    assert 0 < floor < math.log(16)
    for plot in (loss_curves(first, x="step", loss="val_loss"), final_loss(first)):
        assert list(lines(plot)["lowest possible"].get_ydata()) == [floor, floor]
        assert plot.figure.axes[0].get_ylim()[0] < floor
    assert list(lines(best_per_optimizer(first))["lowest possible"].get_xdata()) == [floor, floor]


def test_drawing_leaves_no_trace_and_gives_the_same_bytes_again(sweep: Runs) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    first, second = (best_per_optimizer(part(sweep)) for _ in range(2))
    for kind in ("png", "pdf"):
        assert first.render(kind) == second.render(kind)  # type: ignore[arg-type]
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
