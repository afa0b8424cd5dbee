"""Runs that lack what others have, or are odd in other ways that happen."""

from __future__ import annotations

import json
import math
import shlex
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hydra.core.override_parser.overrides_parser import OverridesParser

from gptopt import layout
from gptopt.cli import main
from gptopt.results import Runs, load, plots, report
from gptopt.results.compare import compare
from gptopt.results.export import write_table
from gptopt.results.fairness import warnings
from gptopt.results.importers import import_runs
from gptopt.results.next import propose
from gptopt.results.repeat import sweep_file
from gptopt.results.show import show
from gptopt.results.stats import best_trials, trials
from gptopt.results.stats.grids import rate_grid
from gptopt.results.stats.targets import to_target

from .rivals import write_both, write_rival
from .rundirs import configure, eval_row, start_row, train_row, write_run

RATE = "optimizer.optimizer_params.lr"
NAME = "optimizer.optimizer_params.name"


def results(*arguments: str | Path) -> str:
    """What ``gptopt results …`` says; it ends with 0."""
    answer = CliRunner().invoke(main, ["results", *map(str, arguments)])
    assert answer.exit_code == 0, answer.output
    return answer.output


def imported(root: Path, **losses: float) -> Path:
    """A run of each optimizer of ``losses``, of logs that tell losses and steps alone."""
    for optimizer, final in losses.items():
        log = root / f"{optimizer}.jsonl"
        rows = [{"_step": step, "val/loss": 5 + (final - 5) * step / 4} for step in range(5)]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_runs("wandb", log, root / "runs", settings={NAME: optimizer})
    return root / "runs"


# --- logs of other programs ---------------------------------------------------------------------


def test_logs_of_nothing_but_losses_pass_through_every_command(tmp_path: Path) -> None:
    runs = imported(tmp_path, adamw=2.5, muon=2.0)
    assert (report(runs, tmp_path / "report")).is_file()
    said = results("watch", "--once", runs)
    assert "unknown on unknown, unknown tokens: 2 runs" in said
    assert "lr null of 0" in said
    said = results("compare", "optimizer=muon", "optimizer=adamw", "--runs", runs)
    assert "A - B = -0.5000" in said
    assert "muon: lr=null" in said
    said = results("next", runs, "-o", tmp_path / "next.json")
    assert "muon: its best lr null is no number above 0" in said
    run = next(runs.rglob(layout.RESOLVED)).parent
    assert "completed: imported, step 4, 1 attempt(s)" in results("show", run)


def test_a_setting_of_an_import_means_what_it_means_to_hydra(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"_step": 1, "loss": 3.0}\n')
    rate = f"{RATE}=1e-3"
    results("import", "wandb", tmp_path / "log.jsonl", rate, "-o", tmp_path / "runs")
    assert load(tmp_path / "runs").runs["lr"].tolist() == [0.001]


def test_a_setting_above_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"_step": 1, "loss": 3.0}\n')
    with pytest.raises(ValueError, match=r"model=gpt2: it takes no value itself; write .*model\."):
        import_runs("wandb", tmp_path, tmp_path / "runs", settings={"model": "gpt2"})
    assert not (tmp_path / "runs").exists()


def test_of_two_names_of_a_loss_the_surest_counts(tmp_path: Path) -> None:
    row = {"_step": 1, "train/loss": 3.0, "loss": 9.0, "seconds": 5.0, "_runtime": 8.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
    (run,) = import_runs("wandb", tmp_path, tmp_path / "runs", settings={}).runs.to_dict("records")
    assert (run["final_train_loss"], run["seconds"]) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        # a summary whose value says that it is a float and has three bytes
        (
            "tensorboard",
            "tfevents",
            struct.pack("<Q4x", 8) + b"\x2a\x06\x0a\x04\x15abc" + b"\0" * 4,
        ),
        ("wandb", "log.csv", b"step,loss\ninf,3.0\n"),
        ("wandb", "log.csv", b"step,loss\n1," + b"3" * 200_000 + b"\n"),
    ],
)
def test_a_damaged_log_is_named(tmp_path: Path, kind: str, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}: no log of {kind}"):
        import_runs(kind, tmp_path / file, tmp_path / "runs", settings={})


def test_two_logs_of_one_seed_are_two_results(tmp_path: Path) -> None:
    for place, loss in enumerate((3.0, 3.2)):
        text = f"seed = 1337\nstep 9: train loss 3.0, val loss {loss}\n"
        (tmp_path / f"{place}.log").write_text(text)
    runs = import_runs("nanogpt", tmp_path, tmp_path / "runs", settings={}).runs
    (best,) = best_trials(trials(runs)).to_dict("records")
    assert (best["n"], best["mean"], len(set(best["seeds"]))) == (2, pytest.approx(3.1), 2)


# --- what was typed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["1e-3", ".5", "1_000", "off", "yes", "2025-01-01", "1:30", "010", "TRUE", "null", "nan", ""]
    + ["[1e-3,.9]", "[off,null]", r"'it\'s'", r"""['it\'s',"b"]""", r"'a\b'", r"'end\\'", "'1e-3'"],
)
def test_a_value_that_was_typed_is_what_hydra_reads(text: str) -> None:
    def plain(value: Any) -> Any:
        return [*map(plain, value)] if isinstance(value, list) else getattr(value, "text", value)

    meant = plain(OverridesParser.create().parse_override(f"key={text}").value())
    written, _ = sweep_file([shlex.quote(f"key={text}")])
    found = json.loads(written)["key"]
    assert repr([meant] if isinstance(meant, list) else meant) == repr(found)


# --- settings -----------------------------------------------------------------------------------


def test_a_key_that_is_null_parts_no_workloads_from_older_runs_without_it(tmp_path: Path) -> None:
    write_rival(tmp_path, "adamw", {0.001: [2.3]})
    write_rival(tmp_path, "muon", {0.01: [2.1]}, model__config__n_kv_head=None)
    parts = load(tmp_path).workloads()
    assert [len(part.runs) for part in parts.values()] == [2]


def test_workloads_that_differ_in_nothing_one_can_see_are_both_there(tmp_path: Path) -> None:
    write_rival(tmp_path, "adamw", {0.001: [2.3]}, model__config__n_layer=8)
    write_rival(tmp_path, "muon", {0.01: [2.1]}, model__config__n_layer=8.0)
    parts = load(tmp_path).workloads()
    assert [len(part.runs) for part in parts.values()] == [1, 1]


def test_settings_of_one_last_name_have_a_figure_each(tmp_path: Path) -> None:
    for eps in (1e-8, 1e-6, 1e-4):
        own = {"optimizer__optimizer_params__eps": eps, "optimizer__optimizer_params__aux": {}}
        own["optimizer__optimizer_params__aux"] = {"eps": 10 * eps}
        write_rival(tmp_path / "runs", "muon", {0.01: [2.0 + eps]}, **own)
    report(tmp_path / "runs", tmp_path / "report")
    drawn = [file.stem for file in (tmp_path / "report" / "figures").glob("*by-*.png")]
    assert len(drawn) == 2


def test_a_null_among_numbers_is_a_level_of_a_map_and_told_of_a_line(tmp_path: Path) -> None:
    for norm, better in ((None, 0.2), (0.5, 0.0), (1.0, 0.1)):
        losses = {lr: [loss - better] for lr, loss in ((0.01, 2.2), (0.02, 2.0))}
        write_rival(tmp_path, "muon", losses, training__training_params__max_grad_norm=norm)
    runs = load(tmp_path)
    column = "training.training_params.max_grad_norm"
    cells = plots.heat_map(runs, optimizer="muon", x=RATE, y=column).data
    assert cells.set_index(["y", "x"])["mean"].to_dict() == {
        (norm, lr): pytest.approx(loss - better)
        for norm, better in (("null", 0.2), (0.5, 0.0), (1.0, 0.1))
        for lr, loss in ((0.01, 2.2), (0.02, 2.0))
    }
    caption = plots.final_loss(runs, axis="max_grad_norm").caption
    assert caption.endswith("Not shown: 2 run(s) without a number there.")


def test_a_misspelt_axis_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write_both(tmp_path)
    with pytest.raises(ValueError, match="No run has a setting 'batchsize'.*batch_size"):
        plots.final_loss(load(tmp_path), axis="batchsize")


def test_a_rate_of_zero_has_no_ratio() -> None:
    drawn = [(0.0, 0.1), (0.1, 0.2), (0.1, 0.3)]
    tried = [
        {"lr": lr, "settings": {"optimizer.optimizer_params.aux.lr": aux}} for lr, aux in drawn
    ]
    assert rate_grid(tried, tried[0]) == [0.0, 0.1]


def test_next_does_not_go_on_from_a_rate_of_zero(tmp_path: Path) -> None:
    write_rival(tmp_path, "sgd", {0.0: [2.0] * 3, 0.1: [2.5] * 3})
    assert propose(load(tmp_path)).reasons == [
        "sgd: its best lr 0 is no number above 0; try rates by hand."
    ]


# --- results ------------------------------------------------------------------------------------


def test_optimizers_that_all_diverged_are_reported_and_compared(tmp_path: Path) -> None:
    for optimizer in ("adamw", "muon"):
        write_rival(tmp_path / "runs", optimizer, {0.1: [2.5, 2.6]}, state="diverged")
    assert report(tmp_path / "runs", tmp_path / "report").is_file()
    said = results("compare", "optimizer=muon", "optimizer=adamw", "--runs", tmp_path / "runs")
    assert "A - B: a run diverged, and its loss is no number" in said
    assert "steps: no loss that both sides reach, one of them diverged" in said
    assert "nan" not in said


def test_diverged_runs_of_all_optimizers_are_seen_on_an_upright_axis(tmp_path: Path) -> None:
    for optimizer in ("adamw", "muon"):
        write_rival(tmp_path, optimizer, {0.1: [2.5, 2.6]}, state="diverged")
    runs = load(tmp_path)
    figure = plots.final_loss(runs).figure
    figure.canvas.draw()
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len({line.get_window_extent().x0 for line in crosses}) == 4
    low, high = plots.best_of_k(runs).figure.axes[0].get_ylim()
    assert low < high


def test_a_completed_run_whose_last_losses_are_infinite_is_drawn(tmp_path: Path) -> None:
    for seed in range(2):
        rows = [start_row(1, 0), eval_row(10, 5.0), eval_row(190, "inf"), eval_row(200, "inf")]
        write_run(tmp_path / str(seed), configure("adamw", 0.1, seed), [rows])
    runs = load(tmp_path)
    for plot in (plots.tuned_curves, plots.loss_curves):
        assert plot(runs, x="step", loss="val_loss").render("png")


@pytest.mark.parametrize(
    ("reason", "told", "cell"),
    [("", "no reason is told", ""), ("a\nb|c", "a\nb|c", "a b\\|c")],
)
def test_a_failure_is_told_whatever_its_reason(
    tmp_path: Path, reason: str, told: str, cell: str
) -> None:
    write_rival(tmp_path / "runs", "adamw", {0.1: [2.0]})
    (run,) = write_rival(tmp_path / "runs", "muon", {0.1: [2.0]}, state="failed")
    marker = {"state": "failed", "reason": reason, "step": 10, "attempt": 1}
    (run / layout.TERMINAL["failed"]).write_text(json.dumps(marker))
    said = warnings(load(tmp_path / "runs").runs)
    assert f"1 run(s) failed and are not counted: {told}." in said
    report(tmp_path / "runs", tmp_path / "report")
    rows = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert f"| muon | lr-0.1-seed-0 | failed | {cell} |" in rows


def test_a_legend_of_long_names_ends_inside_the_figure(tmp_path: Path) -> None:
    for number in range(4):
        write_rival(tmp_path, f"plugin_of_somebody.WithALongNameOfAClass{number}", {0.1: [2.0]})
    figure = plots.tuned_curves(load(tmp_path), x="step", loss="val_loss").figure
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_a_run_that_was_never_evaluated_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", configure("adamw", 0.1, 0), [[start_row(1, 0), train_row(200, 2.0)]])
    told = "Completed without a validation loss, and not counted: 1 run(s)."
    assert told in warnings(load(tmp_path).runs)


def muon_against_adamw(runs: Runs, **asked: Any) -> Any:
    sides = [(name, runs.only(runs.runs["optimizer"] == name)) for name in ("muon", "adamw")]
    return compare(*sides, compared=(), **({"target": None, "cost": "step"} | asked))


def test_speed_is_that_of_the_runs_that_count(tmp_path: Path) -> None:
    write_both(tmp_path)
    before = muon_against_adamw(load(tmp_path)).spent
    for seed in (3, 4, 5):  # as many of the best trial fail as have ended
        rows = [start_row(1, 0), eval_row(20, 5.0)]
        write_run(tmp_path / f"f{seed}", configure("muon", 0.02, seed), [rows], state="failed")
    assert muon_against_adamw(load(tmp_path)).spent == before


def test_a_cost_that_runs_do_not_tell_is_no_infinite_one(tmp_path: Path) -> None:
    runs = load(imported(tmp_path, adamw=2.5, muon=2.0))
    with pytest.raises(ValueError, match="1 of 1 runs do not tell their seconds"):
        muon_against_adamw(runs, cost="seconds")
    # 5 to 2.5 and to 2.0 in 4 steps: 3.5 is passed after 2.4 and 2 of them
    assert sorted(to_target(runs, 3.5, cost="step")["reached"]) == pytest.approx([2.0, 2.4])
    assert to_target(runs, 1.0, cost="seconds")["reached"].tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    "tensor",
    [
        {"rule": "muon", "role": "matrix", "lr": None, "weight_decay": None, "numel": 8},
        {"rule": "muon", "role": "matrix", "lr": 0.1, "weight_decay": "0.1", "numel": "many"},
    ],
)
def test_an_odd_table_of_parameters_does_not_end_show(
    tmp_path: Path, tensor: Mapping[str, Any]
) -> None:
    known = {"parameters": {"table": [tensor]}}
    rows = [start_row(1, 0), train_row(10, "nan"), eval_row(10, "nan")]
    write_run(tmp_path / "a", configure("muon", 0.1, 0), [rows], provenance=known, state="diverged")
    lines = show(load(tmp_path))
    assert "validation loss: last inf; training loss: last inf" in lines
    assert ("parameters:" in lines) == (tensor["numel"] == 8)


# --- places -------------------------------------------------------------------------------------


def test_a_condition_may_be_longer_than_a_name_of_a_file(tmp_path: Path) -> None:
    runs = write_both(tmp_path / "runs")
    long = f"optimizer=muon,lr={'|'.join(f'0.0{n}' for n in range(1, 100))}"
    assert "A - B" in results("compare", long, "optimizer=adamw", "--runs", runs)


def test_a_table_makes_its_directory_and_a_report_names_what_is_in_its_way(tmp_path: Path) -> None:
    runs = write_both(tmp_path / "runs")
    results("table", runs, "-o", tmp_path / "new" / "table.csv")
    assert (tmp_path / "new" / "table.csv").is_file()
    (tmp_path / "file").touch()
    way = str(tmp_path / "file")
    answer = CliRunner().invoke(main, ["results", "report", str(runs), "-o", way])
    assert (answer.exit_code, answer.output) == (73, f"{way}/figures: Not a directory.\n")


def test_numbers_and_texts_of_one_column_are_texts_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"clip": [0.5, "auto", None], "lr": [0.1, 0.2, 0.3]})
    write_table(table, tmp_path / "table.parquet")
    read = pd.read_parquet(tmp_path / "table.parquet")
    assert read["clip"].tolist() == ["0.5", "auto", "null"]
    assert read["lr"].tolist() == [0.1, 0.2, 0.3]
