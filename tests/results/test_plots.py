from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.lines import Line2D

from gptopt.results import Runs, load
from gptopt.results.plots import best_per_optimizer, learning_rates, loss_curves
from gptopt.results.style import Plot, look

from .rundirs import FINALS, configure, eval_row, start_row, write_run


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
    for plot in (loss_curves(part(sweep), x="step", loss="val_loss"), learning_rates(part(sweep))):
        assert 2.0 < plot.figure.axes[0].get_ylim()[1] < 4.5


def test_learning_rates_show_every_run_and_the_mean_over_seeds(sweep: Runs) -> None:
    plot = learning_rates(part(sweep))
    drawn = lines(plot)
    ended = sweep.runs[sweep.runs["state"] == "completed"]
    for optimizer, finals in FINALS.items():
        mine = ended[ended["optimizer"] == optimizer]
        expected = sorted(zip(mine["lr"], mine["final_val_loss"], strict=True))
        shown = [point for point in points(drawn[optimizer]) if math.isfinite(point[1])]
        assert sorted(shown) == expected
        means = dict(points(drawn[f"mean {optimizer}"]))
        assert list(means) == sorted(finals)
        for lr, group in mine.groupby("lr"):
            assert means[lr] == pytest.approx(group["final_val_loss"].mean())
    assert math.isnan(dict(points(drawn["mean muon"]))[0.32])


def test_diverged_runs_are_crosses_on_top_and_an_edge_is_named(sweep: Runs) -> None:
    axes = learning_rates(part(sweep)).figure.axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [float(line.get_xdata()[0]) for line in crosses] == [0.32, 0.32]
    assert {line.get_color() for line in crosses} == {look("muon").colour}
    low, high = axes.get_xlim()
    assert low < 0.001
    assert high > 3.0
    triangles = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert sum(float(line.get_xdata()[0]) == 0.03 for line in triangles) == 2
    assert {text.get_text() for text in axes.texts} == {"highest tried", "diverged", "higher"}


def test_a_learning_rate_that_only_diverged_lies_inside_the_axis(tmp_path: Path) -> None:
    for lr, loss in ((0.004, 2.0), (0.012, 2.1), (1000.0, "nan")):
        rows = [start_row(1, 0), eval_row(10, loss)]
        state = "diverged" if loss == "nan" else "completed"
        write_run(tmp_path / f"{lr}", configure("adamw", lr, 0), [rows], state=state)
    plot = learning_rates(load(tmp_path))
    assert plot.figure.axes[0].get_xlim()[1] > 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.render("png")


def test_the_best_per_optimizer_are_ordered_by_their_mean(sweep: Runs) -> None:
    plot = best_per_optimizer(part(sweep))
    labels = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert labels == ["muon, lr 0.04", "dap-ns-nadam, lr 0.003", "adamw, lr 0.008", "sgd, lr 3"]
    shown = [float(lines(plot)[row.optimizer].get_xdata()[0]) for row in plot.data.itertuples()]
    assert shown == plot.data["mean"].tolist() == sorted(shown)


def test_figures_of_runs_without_results_are_empty_but_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "queued", configure("adamw", 0.1, 0), [], state="queued")
    lost = [start_row(1, 0), eval_row(10, "nan")]
    write_run(tmp_path / "lost", configure("adamw", 0.1, 1), [lost], state="diverged")
    found = load(tmp_path)
    for plot in (
        loss_curves(found, x="tokens", loss="val_loss"),
        learning_rates(found),
        best_per_optimizer(found),
    ):
        assert plot.render("png").startswith(b"\x89PNG")


def test_an_optimizer_looks_the_same_beside_any_other(sweep: Runs) -> None:
    alone = Runs(sweep.runs[sweep.runs["optimizer"] == "muon"], sweep.metrics, sweep.problems)
    together = lines(learning_rates(part(sweep)))["mean muon"]
    assert lines(learning_rates(alone))["mean muon"].get_color() == together.get_color()
    often = ["adamw", "nadamw", "sgd", "muon", "lion", "ns-nadam", "dap-ns-nadam"]
    assert len({look(name).colour for name in often}) == len(often)


def test_drawing_leaves_no_trace_and_gives_the_same_bytes_again(sweep: Runs) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    first, second = (best_per_optimizer(part(sweep)) for _ in range(2))
    for kind in ("png", "pdf"):
        assert first.render(kind) == second.render(kind)  # type: ignore[arg-type]
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
