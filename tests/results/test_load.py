from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.results import Runs, load, report, table
from gptopt.results.columns import METRIC_COLUMNS, RUN_NUMBERS, RUN_TEXTS
from gptopt.results.load import swept

from .rundirs import configure, eval_row, start_row, train_row, write_run

ATTEMPTS = [
    [start_row(1, 0), *(train_row(s, 5 - s / 100) for s in (10, 20, 30, 40)), eval_row(40, 4.5)],
    [start_row(2, 20), train_row(30, 4.71), eval_row(30, 4.61), train_row(40, 4.62)],
    [start_row(3, 30), train_row(40, 4.613), {"event": "stop", "step": 40, "state": "completed"}],
]


def one_run(root: Path, attempts: list[list[dict]], **kwargs: object) -> Path:
    return write_run(root / "run", configure("adamw", 0.001, 0), attempts, **kwargs)  # type: ignore[arg-type]


def measured(runs: Runs) -> list[tuple[int, str, int, float]]:
    rows = runs.metrics.itertuples()
    return [
        (r.attempt, r.event, r.step, r.train_loss if r.event == "train" else r.val_loss)
        for r in rows
    ]


def test_attempts_are_merged_as_if_the_run_was_never_interrupted(tmp_path: Path) -> None:
    one_run(tmp_path, ATTEMPTS)
    # Attempt 2 took over at step 20, attempt 3 at step 30: what they did again counts once.
    assert measured(load(tmp_path)) == [
        (1, "train", 10, 4.9),
        (1, "train", 20, 4.8),
        (2, "train", 30, 4.71),
        (2, "eval", 30, 4.61),
        (3, "train", 40, 4.613),
    ]


def test_an_older_attempt_never_outlives_a_younger_one_that_started_earlier(
    tmp_path: Path,
) -> None:
    attempts = [ATTEMPTS[0], ATTEMPTS[2], [start_row(3, 10), train_row(20, 1.0)]]
    one_run(tmp_path, attempts)
    assert measured(load(tmp_path)) == [(1, "train", 10, 4.9), (3, "train", 20, 1.0)]


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_file_cut_at_any_byte_gives_exactly_its_complete_rows(
    tmp_path: Path, attempt: int
) -> None:
    used = ("event", "step", "start_step", "train_loss", "val_loss")
    attempts = [[{k: r[k] for k in used if k in r} for r in rows] for rows in ATTEMPTS]
    run = one_run(tmp_path, attempts)
    file = layout.metrics_file(run, attempt)
    content = file.read_bytes()
    for length in range(len(content) + 1):
        file.write_bytes(content[:length])
        kept = [list(rows) for rows in ATTEMPTS]
        kept[attempt - 1] = kept[attempt - 1][: content[:length].count(b"\n")]
        expected: list[tuple[int, str, int, float]] = []
        for number, rows in enumerate(kept, start=1):
            horizon = min((r[0]["start_step"] for r in kept[number:] if r), default=math.inf)
            expected += [
                (number, r["event"], r["step"], r.get("train_loss", r.get("val_loss")))
                for r in rows
                if r["event"] in ("train", "eval") and r["step"] <= horizon
            ]
        found = load(tmp_path)
        assert measured(found) == expected
        torn = found.problems["problem"].eq("last line cut off").sum()
        assert torn == (length > 0 and content[length - 1 : length] != b"\n")


def test_lines_that_are_no_rows_are_counted_and_cost_no_other_row(tmp_path: Path) -> None:
    run = one_run(tmp_path, ATTEMPTS[:1])
    file = layout.metrics_file(run, 1)
    good = file.read_text().splitlines(keepends=True)
    bad = [
        "",
        "{",
        "null",
        "[1]",
        '{"event": "train"}',
        '{"event": "train", "step": 1.5}',
        '{"event": "train", "step": -1}',
        '{"event": ["train"], "step": 1}',
        '{"event": "train", "step": 1, "train_loss": "low"}',
        '{"event": "train", "step": 1, "train_loss": [1]}',
        '{"event": "train", "step": 1, "tokens": 1' + "0" * 400 + "}",
        '{"event": "train", "step": 99999999999999999999}',
        '{"event": "train", "step": 1, "train_loss": null, "nonfinite": ["train_loss"]}',
        '{"event": "train", "step": 1, "train_loss": null, "nonfinite": {"train_loss": "x"}}',
        "[" * 100_000,
        "\x00\x00",
    ]
    whole = load(tmp_path)
    file.write_text("".join([*good[:3], *(f"{line}\n" for line in bad), *good[3:]]))
    file.write_bytes(file.read_bytes() + b"\xff\xfe\n")
    found = load(tmp_path)
    assert measured(found) == measured(whole)
    assert found.problems["count"].tolist() == [len(bad) + 1]


def test_a_lost_first_row_hands_over_before_the_first_row_that_is_left(tmp_path: Path) -> None:
    run = one_run(tmp_path, ATTEMPTS[:2])
    file = layout.metrics_file(run, 2)
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(first[:-9] + "\n" + "".join(rest))
    assert [row[:3] for row in measured(load(tmp_path))] == [
        (1, "train", 10),
        (1, "train", 20),
        (2, "train", 30),
        (2, "eval", 30),
        (2, "train", 40),
    ]


def test_a_row_of_a_run_says_what_its_files_say(tmp_path: Path) -> None:
    run = one_run(tmp_path, ATTEMPTS, state="completed")
    row = load(tmp_path).runs.iloc[0]
    assert row["path"] == str(run.resolve())
    assert (row["model"], row["dataset"], row["optimizer"]) == ("gpt-tiny", "stdlib", "adamw")
    assert (row["state"], row["reason"], row["attempts"]) == ("completed", "it completed", 3)
    assert (row["step"], row["max_steps"]) == (40, 200)
    assert (row["tokens"], row["total_tokens"]) == (40 * 1024, 200 * 1024)
    assert (row["seed"], row["lr"], row["parameters"]) == (0, 0.001, 160_000)
    assert (row["final_train_loss"], row["final_val_loss"]) == (4.613, 4.61)
    assert (row["best_val_loss"], row["best_val_step"]) == (4.61, 30)
    assert (row["seconds"], row["tokens_per_second"]) == (2.0, 20480.0)
    assert row["started"] == 1e9 + 1
    assert row["optimizer.optimizer_params.betas"] == "[0.9, 0.95]"
    assert row["run.git.commit"] == "0123456789abcdef"
    assert not [name for name in row.index if name.startswith(("run.data", "run.parameters.table"))]
    assert row["overrides"] == "optimizer=muon 'paths.run_name=it'\"'\"'s'"


def test_names_of_directories_mean_nothing(sweep: Runs) -> None:
    # The fixture's directories claim gpt2, c4, adam, lr 1 and seed 9.
    assert set(sweep.runs["model"]) == {"gpt-tiny"}
    assert set(sweep.runs["dataset"]) == {"stdlib"}
    assert set(sweep.runs["optimizer"]) == {"adamw", "muon", "sgd", "dap-ns-nadam"}
    assert 9 not in set(sweep.runs["seed"])


def test_a_value_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    rows = [start_row(1, 0), eval_row(10, "-inf"), eval_row(20, 3.0), eval_row(30, "nan")]
    one_run(tmp_path, [rows], state="diverged")
    found = load(tmp_path)
    row = found.runs.iloc[0]
    assert (row["best_val_loss"], row["best_val_step"]) == (3.0, 20)
    assert row["final_val_loss"] == math.inf
    logged = found.metrics["val_loss"].tolist()
    assert logged[:2] == [-math.inf, 3.0]
    assert math.isnan(logged[2])


def test_null_without_a_word_is_a_value_that_was_not_measured(tmp_path: Path) -> None:
    rows = [eval_row(10, 3.0, train_loss=2.9), train_row(20, 2.8) | {"val_loss": None}]
    one_run(tmp_path, [[start_row(1, 0), *rows]])
    row = load(tmp_path).runs.iloc[0]
    assert (row["final_val_loss"], row["final_train_loss"]) == (3.0, 2.8)


def test_runs_at_every_stage_have_a_row(tmp_path: Path) -> None:
    states = {"new": [], "preempted": ATTEMPTS[:1], "interrupted": ATTEMPTS[:2]}
    states |= {"completed": ATTEMPTS, "diverged": ATTEMPTS[:1], "failed": ATTEMPTS[:1]}
    for seed, (state, attempts) in enumerate(states.items()):
        write_run(tmp_path / state, configure("adamw", 0.1, seed), attempts, state=state)
    # A status that says running proves nothing while nobody holds the lock.
    write_run(tmp_path / "dead", configure("adamw", 0.1, 9), ATTEMPTS[:1], state="running")
    found = load(tmp_path).runs.set_index("seed")["state"]
    assert found.to_dict() == dict(enumerate(states)) | {9: "interrupted"}


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    run = one_run(tmp_path, ATTEMPTS[:1], state="running")
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(run / layout.LOCK)]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert load(tmp_path).runs["state"].item() == "running"
        holder.kill()
    assert load(tmp_path).runs["state"].item() == "interrupted"


def test_reading_beside_a_writer_sees_a_prefix(tmp_path: Path) -> None:
    run = one_run(tmp_path, [[start_row(1, 0)]], state="running")
    rows = [train_row(step, float(step)) for step in range(1, 40)]
    with open(layout.metrics_file(run, 1), "ab", buffering=0) as file:
        for done, row in enumerate(rows):
            line = json.dumps(row).encode() + b"\n"
            file.write(line[:20])
            assert load(tmp_path).metrics["step"].tolist() == list(range(1, done + 1))
            file.write(line[20:])
    assert load(tmp_path).metrics["step"].tolist() == list(range(1, 40))


def test_foreign_files_are_skipped_and_counted(tmp_path: Path) -> None:
    run = one_run(tmp_path / "a", ATTEMPTS)
    (run / "metrics.0009.jsonl").mkdir()
    (run / "metrics.old.jsonl").write_text("{")
    (run / "notes.txt").write_text("lr too high")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden").mkdir()
    for name, content in {
        "torn": "model: {na",
        "other": "lr: 1",
        "bytes": "\x00",
        "list": "[]",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / layout.RESOLVED).write_text(content)
    found = load([tmp_path, tmp_path / "missing", run / "notes.txt"])
    assert found.runs["path"].tolist() == [str(run.resolve())]
    whose = [Path(path).relative_to(tmp_path).parts[0] for path in found.problems["path"]]
    assert set(whose) == {"a", "torn", "other", "bytes", "list", "missing"}
    assert found.metrics["step"].tolist() == [10, 20, 30, 30, 40]


def test_links_to_runs_count_and_a_run_counts_once(tmp_path: Path) -> None:
    run = one_run(tmp_path / "outputs", ATTEMPTS)
    multirun = tmp_path / "multirun" / "2026-01-01"
    multirun.mkdir(parents=True)
    (multirun / "0").symlink_to(run)
    assert load(multirun).runs["path"].tolist() == [str(run.resolve())]
    assert len(load([multirun, tmp_path, str(run)]).runs) == 1


def test_a_copy_is_no_second_seed_and_the_run_started_last_is_kept(tmp_path: Path) -> None:
    config = configure("adamw", 0.001, 0)
    write_run(tmp_path / "aside", config, [[start_row(1, 0), eval_row(10, 2.0)]])
    again = start_row(1, 0) | {"time": 2e9}
    write_run(tmp_path / "again", config, [[again, eval_row(10, 3.0)]])
    found = load(tmp_path)
    assert found.runs["final_val_loss"].tolist() == [3.0]
    assert found.metrics["val_loss"].tolist() == [3.0]
    assert found.problems["path"].tolist() == [str((tmp_path / "aside").resolve())]


def test_a_directory_without_runs_gives_tables_with_all_columns(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert list(found.runs) == [*RUN_TEXTS, *RUN_NUMBERS]
    assert list(found.metrics) == list(METRIC_COLUMNS)
    assert found.workloads() == {}
    for use in (table, lambda path: report(path, tmp_path / "report")):
        with pytest.raises(ValueError, match="No run below"):
            use(tmp_path)


def test_runs_that_differ_only_in_seeds_are_one_trial(tmp_path: Path) -> None:
    configs = [
        configure("adamw", 0.001, 0),
        configure("adamw", 0.001, 1, training__training_params__data_seed=7),
        configure("adamw", 0.001, 2, paths__sweep="x", logging__logging_params__log_interval=1),
        configure("adamw", 0.001, 0, optimizer__optimizer_params__eps=1e-6),
        configure("adamw", 0.002, 0),
    ]
    for number, config in enumerate(configs):
        write_run(tmp_path / f"{number}", config, ATTEMPTS)
    found = load(tmp_path).runs
    assert [found["trial"].tolist().index(t) for t in found["trial"]] == [0, 0, 0, 3, 4]
    assert swept(found) == ["optimizer.optimizer_params.lr", "optimizer.optimizer_params.eps"]


def test_workloads_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for number, layers in enumerate((2, 4)):
        config = configure("adamw", 0.001, 0, model__config__n_layer=layers)
        write_run(tmp_path / f"{number}", config, ATTEMPTS)
    longer = configure("adamw", 0.001, 0, training__training_params__max_steps=400)
    write_run(tmp_path / "longer", longer, ATTEMPTS)
    parts = load(tmp_path).workloads()
    assert list(parts) == [
        "gpt-tiny on stdlib, 204,800 tokens, n_layer=2",
        "gpt-tiny on stdlib, 204,800 tokens, n_layer=4",
        "gpt-tiny on stdlib, 409,600 tokens",
    ]
    assert [len(part.runs) for part in parts.values()] == [1, 1, 1]
    assert [len(part.metrics) for part in parts.values()] == [5, 5, 5]


def test_nothing_in_a_run_directory_makes_the_reader_raise(tmp_path: Path) -> None:
    rng = random.Random(0)
    values = ["null", "nan", ".inf", "-1", "1e400", "[]", "{}", "''", "yes", "2026-01-01", "'a|b'"]
    for number in range(60):
        run = one_run(tmp_path / f"{number}", ATTEMPTS)
        resolved = run / layout.RESOLVED
        lines = resolved.read_text().replace("run_id: ", f"run_id: {number}").splitlines()
        chosen = rng.randrange(len(lines))
        if "run_id" not in lines[chosen]:
            lines[chosen] = re.sub(r": .*", f": {rng.choice(values)}", lines[chosen])
        resolved.write_text("\n".join(lines))
        for file in sorted(path for path in run.rglob("*") if path.is_file() and path != resolved):
            content = bytearray(file.read_bytes())
            for _ in range(rng.choice([0, 0, 1 + len(content) // 50])):
                place = rng.randrange(len(content) + 1)
                content[place : place + rng.randrange(4)] = rng.randbytes(rng.randrange(3))
            file.write_bytes(content)
    assert len(table(tmp_path)) == len(load(tmp_path).runs) > 50
    assert report(tmp_path / "0", tmp_path / "report").is_file()


def test_importing_results_loads_nothing_heavy() -> None:
    code = "import sys, gptopt.results; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert not {"torch", "pandas", "matplotlib", "scipy", "numpy"} & set(loaded)


def test_the_documented_columns_are_those_of_the_tables() -> None:
    documented = (layout.PROJECT / "docs" / "results.md").read_text()
    for name, meaning in [*(RUN_TEXTS | RUN_NUMBERS).items(), *METRIC_COLUMNS.items()]:
        assert f"| `{name}` | {meaning} |" in documented


@pytest.mark.parametrize(
    ("recorded", "expected"), [({}, 6 * 130_000), ({"flops_per_token": 12 * 130_000}, 12 * 130_000)]
)
def test_flops_are_those_on_record_or_else_one_pass(
    tmp_path: Path, recorded: dict[str, int], expected: int
) -> None:
    write_run(tmp_path / "a", configure("mars", 0.1, 0), [], provenance=recorded)
    assert load(tmp_path).runs["flops_per_token"].tolist() == [expected]
