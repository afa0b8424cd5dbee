from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest

from gptopt.results import Runs, load
from gptopt.results.plots import ablation, final_loss, heat_map
from gptopt.results.style import look

from .rundirs import FINALS, configure, eval_row, start_row, write_run
from .test_plots import lines, part, points

LR, WD = "optimizer.optimizer_params.lr", "optimizer.optimizer_params.weight_decay"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two settings of adamw, one of them linear from 0: the lowest loss is at lr 0.1, wd 0.2."""
    root = tmp_path_factory.mktemp("grid")
    for lr in (0.01, 0.1, 1.0):
        for decay in (0.0, 0.1, 0.2):
            for seed in (0, 1):
                loss = 2.0 + abs(math.log10(lr) + 1) / 2 - decay + 0.01 * seed
                is_lost = (lr, decay) == (1.0, 0.0)
                config = configure("adamw", lr, seed)
                config["optimizer"]["optimizer_params"]["weight_decay"] = decay
                config["derived"]["run_id"] = f"{lr} {decay} {seed}"
                rows = [start_row(1, 0), eval_row(10, "nan" if is_lost else loss)]
                state = "diverged" if is_lost else "completed"
                write_run(root / f"{lr}-{decay}-{seed}", config, [rows], state=state)
    return load(root)


def test_learning_rates_show_every_run_and_the_mean_over_seeds(sweep: Runs) -> None:
    plot = final_loss(part(sweep))
    drawn = lines(plot)
    ended = sweep.runs[sweep.runs["state"] == "completed"]
    for optimizer, finals in FINALS.items():
        mine = ended[ended["optimizer"] == optimizer]
        inside = mine[mine["final_val_loss"] < 7]  # the one at 7.78 is a triangle on top
        expected = sorted(zip(inside["lr"], inside["final_val_loss"], strict=True))
        assert sorted(points(drawn[optimizer])) == expected
        means = dict(points(drawn[f"mean {optimizer}"]))
        assert list(means) == sorted(finals)
        for lr, group in mine.groupby("lr"):
            assert means[lr] == pytest.approx(group["final_val_loss"].mean())
    assert math.isnan(dict(points(drawn["mean muon"]))[0.32])


def test_diverged_runs_are_crosses_on_top_and_an_edge_is_named(sweep: Runs) -> None:
    axes = final_loss(part(sweep)).figure.axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [float(line.get_xdata()[0]) for line in crosses] == [0.32, 0.32]
    assert {line.get_color() for line in crosses} == {look("muon").colour}
    low, high = axes.get_xlim()
    assert low < 0.001
    assert high > 3.0
    triangles = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert sum(float(line.get_xdata()[0]) == 0.03 for line in triangles) == 2
    assert {text.get_text() for text in axes.texts} == {"", "diverged", "higher"}
    (arrow,) = (text for text in axes.texts if text.get_text() == "")  # of sgd, at 3.0
    assert (arrow.get_gid(), arrow.xy[0], arrow.xyann[0]) == ("highest tried", 3.0, 19)


def test_a_learning_rate_that_only_diverged_lies_inside_the_axis(tmp_path: Path) -> None:
    for lr, loss in ((0.004, 2.0), (0.012, 2.1), (1000.0, "nan")):
        rows = [start_row(1, 0), eval_row(10, loss)]
        state = "diverged" if loss == "nan" else "completed"
        write_run(tmp_path / f"{lr}", configure("adamw", lr, 0), [rows], state=state)
    plot = final_loss(load(tmp_path))
    assert plot.figure.axes[0].get_xlim()[1] > 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.render("png")


def test_any_setting_can_be_the_axis_and_its_best_trials_make_the_line(grid: Runs) -> None:
    plot = final_loss(grid, axis=WD)
    mean = dict(points(lines(plot)["mean adamw"]))
    assert mean == pytest.approx({0.0: 2.005, 0.1: 1.905, 0.2: 1.805})
    axes = plot.figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("linear", "weight_decay")
    (arrow,) = (text for text in axes.texts if text.get_gid())
    assert arrow.get_gid() == "highest tried"


def test_a_heat_map_has_a_cell_for_each_pair_with_its_mean(grid: Runs) -> None:
    plot = heat_map(grid, optimizer="adamw", x=LR, y=WD)
    cells = {(row["x"], row["y"]): row["mean"] for _, row in plot.data.iterrows()}
    assert len(cells) == 9
    assert cells[0.1, 0.2] == pytest.approx(1.805)
    assert cells[0.01, 0.0] == pytest.approx(2.505)
    assert cells[1.0, 0.0] == math.inf
    texts = {text.get_position(): text for text in plot.figure.axes[0].texts}
    assert texts[1, 2].get_text() == "1.805"
    assert texts[1, 2].get_weight() == "bold"
    assert texts[2, 0].get_text() == "diverged"


def test_an_ablation_changes_one_setting_at_a_time(grid: Runs) -> None:
    plot = ablation(grid, optimizer="adamw")
    rows = [(row["setting"], row["value"], round(row["gap"], 6)) for _, row in plot.data.iterrows()]
    base, *changed = rows
    assert base[:2] == ("", "lr=0.1, weight_decay=0.2")
    assert changed == [(LR, 0.01, 0.5), (LR, 1.0, 0.5), (WD, 0.0, 0.2), (WD, 0.1, 0.1)]
    # Welch by hand: both sides have variance 0.01^2 / 2, so the gap of 0.1 has the error
    # 0.01 / sqrt(2) and 2 degrees of freedom, where t = 4.303 for 95 %.
    last = plot.data.iloc[-1]
    assert last["high"] - last["gap"] == pytest.approx(4.303 * 0.01 / 2**0.5, rel=1e-3)
    shown = plot.figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in shown][-1] == "weight_decay 0.1"
