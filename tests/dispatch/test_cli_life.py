"""The life of a sweep after planning: stages, failures, edges, status, cancelling."""

import json
import math
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import POINT

from gptopt import dispatch, layout
from gptopt.cli import main
from gptopt.sweep.record import Record

LR = "optimizer.optimizer_params.lr"
STAGES = {
    "optimizer": ["adamw", "sgd"],
    "$stages": [{"lr": [1, 2, 4]}, {"$top": 1, "wd": [0.3, 0.4]}],
}


class Fake:
    """A back end whose runs end at once with ``loss(overrides)``: a number, or an exit code."""

    def __init__(self):
        self.submitted = []
        self.loss = lambda values: abs(values[LR] - 2)
        self.jobs = []

    def submit(self, record, cluster):
        rows = record.submitted()
        self.submitted.append([row.run for row in rows])
        failed = 0
        for row in rows if not self.jobs else []:
            known = [text for text in row.overrides if not text.endswith("'")]
            loss = self.loss({k: float(v) for k, v in (text.split("=") for text in known)})
            failed += isinstance(loss, str)
            finish(Path(row.run), loss)
        return dispatch.Submission("", jobs=self.jobs, failed=failed)


def finish(run, loss):
    run.mkdir(parents=True, exist_ok=True)
    (run / "failed.json").unlink(missing_ok=True)
    if isinstance(loss, str):
        facts = {"exit_code": int(loss), "reason": f"Error: {loss}"}
        (run / "failed.json").write_text(json.dumps(facts))
        return
    state = "completed" if math.isfinite(loss) else "diverged"
    final = {"val_loss": loss if math.isfinite(loss) else None}
    (run / layout.TERMINAL[state]).write_text(json.dumps({"final": final}))


@pytest.fixture
def fake(monkeypatch):
    found = Fake()
    monkeypatch.setattr(dispatch, "backend", lambda name: found)
    return found


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs ``gptopt sweep`` in an empty directory; returns (exit code, lines of output)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))

    def sweep(*arguments):
        answer = CliRunner().invoke(main, ["sweep", *map(str, arguments)])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer
        return answer.exit_code, answer.output.splitlines()

    return sweep


def write(content, name="a sweep.json"):
    Path(name).write_text(json.dumps(content))
    return Path(name)


def test_submit_starts_the_stage_whose_turn_it_is(sweep, fake):
    file = write(STAGES)
    assert sweep("submit", file)[0] == 0
    code, said = sweep("submit", file)
    assert (code, said[:3]) == (
        0,
        [
            "stage 1 of 2: 6 runs, all have a result",
            "stage 2 of 2: 4 runs, 4 without a result",
            "10 runs: 6 completed, 4 to do",
        ],
    )
    assert [len(runs) for runs in fake.submitted] == [6, 4]
    assert sweep("submit", file)[1][-1] == "10 runs: 10 completed, nothing to do"


def test_chained_stages_run_one_after_the_other(sweep, fake):
    code, said = sweep("submit", write(STAGES), "--chain")
    assert (code, [len(runs) for runs in fake.submitted]) == (0, [6, 4])
    assert "best of stage 1: optimizer='sgd' lr=2: val_loss 0.0000" in said


def test_a_chain_stops_behind_a_failed_run_and_submit_goes_on_once_it_is_repaired(sweep, fake):
    file = write(STAGES)
    fake.loss = lambda values: "65" if values[LR] == 4 else values[LR]
    code, said = sweep("submit", file, "--chain")
    assert (code, len(fake.submitted)) == (1, 1)
    code, said = sweep("next", file)
    assert code == 2
    assert "stage 2 waits for stage 1, of which 2 of 6 runs have no result" in said[-1]
    assert sweep("submit", file)[1][-1] == (
        "2 failed (data) and would fail again; repaired? gptopt sweep retry 'a sweep.json'"
        " --class data"
    )
    assert len(fake.submitted) == 1
    fake.loss = lambda values: values[LR]
    assert sweep("retry", file, "--class", "data")[0] == 0
    assert sweep("next", file, "--chain")[0] == 0
    assert [len(runs) for runs in fake.submitted] == [6, 2, 4]


def test_next_says_what_is_missing_and_starts_only_what_is_its_turn(sweep, fake):
    file = write(STAGES)
    code, said = sweep("next", file)
    assert (code, fake.submitted) == (2, [])
    assert said[-1].endswith("6 of 6 runs have no result. Nothing was started.")
    sweep("submit", file)
    code, said = sweep("next", file, "--dry-run")
    counts = "10 runs: 6 completed, 4 to do"
    assert (code, counts in said, len(fake.submitted)) == (0, True, 1)
    assert sweep("next", file)[0] == 0
    assert [len(runs) for runs in fake.submitted] == [6, 4]
    assert sweep("next", file, "--stage", 3) == (0, [f"{file} has 2 stages; there is no stage 3."])


def test_in_a_queue_a_small_job_waits_for_the_stage_and_submits_the_next(
    sweep, fake, tmp_path, monkeypatch
):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{tmp_path}/asked'\necho '77;lab'\n")
    sbatch.chmod(0o755)
    (sbatch.parent / "squeue").symlink_to("/bin/true")
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    fake.jobs = ["12", "13"]
    file = write(STAGES)
    options = ["--via", "submitit", "--chain", "cluster.partition=gpu"]
    code, said = sweep("submit", file, *options)
    assert (code, said[-1]) == (0, "job 77 submits stage 2 when they have ended")
    asked = Path("asked").read_text()
    for option in ("--dependency=afterany:12:13", "--partition=gpu", "--job-name=gptopt-a_sweep-"):
        assert option in asked
    assert [Record(run).jobs()[run] for run in Path("logs").absolute().glob("*/*")] == [
        ("77", None)
    ]
    command = asked.split(" sweep ")[1].split()
    assert command[0] == "next"
    record = Path(command[1])
    assert record.name == "run_info_1"

    # What the job then does: nothing while runs are missing, else the next stage of this sweep.
    again = [word.strip("'") for word in command]
    code, said = sweep(*again)
    assert (code, "stage 2 waits for stage 1" in said[-1], len(fake.submitted)) == (2, True, 1)
    for row in Record(record).rows():
        finish(Path(row.run), 1.0)
    assert sweep(*again)[0] == 0
    assert [len(runs) for runs in fake.submitted] == [6, 4]
    assert (record.parent / "run_info_2").is_dir()


def test_a_chain_needs_stages(sweep, fake):
    assert sweep("submit", write({"lr": [1, 2]}), "--chain") == (
        2,
        ["--chain: a sweep.json has no $stages."],
    )


def test_retry_starts_what_may_help_and_the_rest_only_when_it_is_named(sweep, fake):
    codes = {0: "1", 1: "2", 2: "65", 3: "69", 4: "70", 5: "74"}
    file = write({"seed": list(range(7))})
    fake.loss = lambda values: codes.get(values["training.training_params.seed"], 1.0)
    assert sweep("submit", file)[0] == 1

    def retried(*options):
        before = len(fake.submitted)
        sweep("retry", file, *options)
        names = [run for runs in fake.submitted[before:] for run in runs]
        return sorted(int(run.split("seed-")[1].split("-")[0]) for run in names)

    assert retried() == [0, 4, 5]
    assert retried("--class", "out of memory") == [3]
    assert retried("--class", "config", "--class", "data") == [1, 2]
    assert retried("--all") == [0, 1, 2, 3, 4, 5]
    record = Path("logs/a_sweep/run_info_1")
    assert sweep("retry", file, "--class", "dtaa")[0] == 2
    assert record.is_dir()


def test_retry_leaves_alone_what_a_person_stopped_and_says_what_starts_it(sweep, fake):
    file = write({"seed": [0, 1]})
    fake.loss = lambda values: "1"
    sweep("submit", file)
    first = Path(fake.submitted[0][0])
    (first / "failed.json").unlink()
    layout.attempt_file(first, 1).parent.mkdir()
    layout.attempt_file(first, 1).write_text("{}")
    status = {"state": "interrupted", "reason": "stop file"}  # as `cancel` makes it end
    (first / layout.STATUS).write_text(json.dumps(status))
    words = "1 stopped by a person, left alone: submit, or --class stopped"
    assert words in sweep("retry", file, "--dry-run")[1]
    assert words not in sweep("retry", file, "--class", "stopped", "--dry-run")[1]


def test_a_retry_with_a_wrong_class_names_the_nearest(sweep, fake):
    code, said = sweep("retry", write({"seed": 0}), "--class", "dat")
    assert (code, said) == (
        2,
        [
            "--class dat: there is no such class. Did you mean 'data'? There are: config, data,"
            " out of memory, storage, hang, crash, time limit, preempted, stopped, node failure."
        ],
    )


def test_extend_writes_a_file_that_adds_what_lies_beyond(sweep, fake):
    file = write({"lr": [1, 2, 4], "seed": [0, 1]})
    words = "no best value lies at an edge that can be extended (6 runs have no result yet)"
    assert sweep("extend", file) == (0, [f"{words}: nothing was written"])
    assert not Path("a sweep.extended.json").exists()
    fake.loss = lambda values: -values[LR]
    sweep("submit", file)
    code, said = sweep("extend", file)
    assert (code, said) == (
        0,
        [
            "best: lr=4: val_loss -4.0000, mean of 2 runs",
            "  EDGE lr=4 (best is last) -> add 8, 16",
            "wrote a sweep.extended.json; next: gptopt sweep submit 'a sweep.extended.json'",
        ],
    )
    assert sweep("plan", "a sweep.extended.json")[1][0] == "10 runs: 6 completed, 4 to do"
    assert sweep("extend", file)[0] == 2


def test_status_shows_one_stage_where_that_is_asked_for(sweep, fake):
    file = write(STAGES)
    sweep("submit", file, "--chain")
    code, said = sweep("status", file, "--stage", 2)
    assert (code, said[-1]) == (0, "4 runs: 4 completed, nothing to do")
    assert not any("best of stage 1" in line for line in said)
    words = "--stage 3: a sweep.json: the runs of its stages are known up to stage 2."
    assert sweep("status", file, "--stage", 3) == (2, [words])
    assert sweep("status", "logs/a_sweep/run_info_1", "--stage", 1)[0] == 2


@pytest.mark.parametrize("command", ["status", "cancel", "next", "retry"])
def test_the_directory_of_a_sweep_is_answered_with_its_records(sweep, command):
    for number in (1, 9, 10):
        (Path("logs/a sweep") / f"run_info_{number}").mkdir(parents=True)
    code, said = sweep(command, "logs/a sweep/")
    assert (code, said) == (
        2,
        [
            "logs/a sweep holds the records run_info_1, run_info_9, run_info_10. For the newest:"
            f" gptopt sweep {command} 'logs/a sweep/run_info_10'"
        ],
    )


def test_status_and_plan_answer_programs(sweep, fake):
    file = write(STAGES)
    sweep("submit", file)
    code, said = sweep("status", file, "--json")
    told = json.loads("\n".join(said))
    assert (code, told["summary"]) == (0, "10 runs: 6 completed, 4 to do")
    assert [stage["missing"] for stage in told["stages"]] == [0, 4]
    assert [(one["stage"], one["setting"][LR]) for one in told["best"]] == [(1, 2), (1, 2)]
    told = json.loads("\n".join(sweep("plan", file, "--json")[1]))
    assert [stage["size"] for stage in told["stages"]] == [6, 4]
    assert len(told["runs"]) == 10
    record = json.loads("\n".join(sweep("status", "logs/a_sweep/run_info_1", "--json")[1]))
    assert len(record["runs"]) == 6


def test_cancel_asks_once_stops_what_is_open_and_says_so(sweep, fake, monkeypatch):
    told = []
    monkeypatch.setattr(dispatch, "cancel", lambda record: told.append(record.directory.name) or 3)
    file = write({"seed": [0, 1]})
    assert sweep("cancel", file) == (0, ["nothing of it runs or waits"])
    fake.jobs = ["12"]
    sweep("submit", file)
    other = write({"seed": [0, 1]}, "other.json")
    sweep("submit", other)
    assert sweep("cancel", file)[0] == 1  # nobody answers the question
    assert told == []
    code, said = sweep("cancel", file, "--yes")
    assert said == ["3 jobs and runs were told to stop; submit goes on from what they save"]
    assert (code, told) == (0, ["run_info_1"])


def test_two_stages_from_nothing_to_the_table_of_the_second(sweep):
    content = POINT | {
        "steps": 3,
        "$stages": [{"lr": [0.001, 0.004]}, {"$top": 1, "lr": {"times": [1, 2]}, "seed": [0, 1]}],
    }
    code, said = sweep("submit", write(content), "--chain", "cluster.workers=2")
    assert code == 0, said
    # 2 rates; then the better one, at once and twice, with 2 seeds, of which one is known
    assert len(list(Path("outputs").rglob("completed.json"))) == 2 + 3
    code, said = sweep("status", "a sweep.json")
    assert said[-1] == "5 runs: 5 completed, nothing to do"
    assert sum(line.startswith("best of stage 2: ") for line in said) == 1
