"""How a sweep stands, in lines and for programs."""

import json

import pytest

from gptopt.lease import Lease
from gptopt.sweep.failures import Failure
from gptopt.sweep.progress import Glimpse, glimpse
from gptopt.sweep.status import held_lines, stage_lines, standings, table


@pytest.fixture
def four(planned, end):
    """A run that has ended, one at work, one that failed and one in the queue."""
    content = {"lr": [1, 2, 3, 4]}
    ended, working, failed, _ = (run.run for run in planned(content).runs)
    end(ended, 3.25)
    lease = Lease.take(working)
    lease.status("running", step=0, max_steps=100)
    row = {"event": "train", "step": 25, "train_loss": 4.5, "seconds": 50.0}
    (working / "metrics.0001.jsonl").write_text(json.dumps(row) + '\n{"event": "tra')
    failed.mkdir(parents=True)
    facts = {"reason": "DataError: lost", "exit_code": 65, "step": 2}
    (failed / "failed.json").write_text(json.dumps(facts))
    yield planned(content)
    lease.release()


def test_a_line_tells_state_step_time_left_losses_and_failure(four):
    waiting = four.runs[3].run
    lines = table(standings(four.runs, {waiting: "job 12 PENDING Priority"}, {}))
    assert [line.split() for line in lines] == [
        ["run", "state", "step", "left", "train_loss", "val_loss"],
        ["0", "completed", "3.2500", "lr=1"],
        # 25 steps in 50 s: 75 more take 150 s
        ["1", "running", "25/100", "0:02:30", "4.5000", "lr=2"],
        ["2", "failed", "lr=3", "[data:", "DataError:", "lost]"],
        ["3", "pending", "lr=4", "[job", "12", "PENDING", "Priority]"],
    ]


def test_the_loss_of_a_batch_does_not_stand_in_the_column_of_validation_losses(four):
    head, ended, working, *_ = table(standings(four.runs, {}, {}))
    ends = {name: head.index(name) + len(name) for name in ("train_loss", "val_loss")}
    assert ended[: ends["val_loss"]].endswith("3.2500")
    assert working[: ends["train_loss"]].endswith("4.5000")


def test_a_program_gets_the_same_as_json(four):
    facts = [one.to_json() for one in standings(four.runs, {}, {})]
    assert json.loads(json.dumps(facts)) == facts
    assert [one["state"] for one in facts] == ["completed", "running", "failed", "new"]
    assert [one["val_loss"] for one in facts] == [3.25, None, None, None]
    assert facts[1]["left_s"] == 150
    assert facts[2]["failure"] == {"name": "data", "words": "DataError: lost"}


def test_a_run_that_never_came_to_be_tells_why_until_it_does(four):
    queued, working = four.runs[3].run, four.runs[1].run
    why = Failure("data", "corpus.txt is\n not there")
    found = standings(four.runs, {}, {queued: why, working: why})
    assert [one.failure == why for one in found] == [False, False, False, True]
    assert table(found)[-1].endswith("lr=4  [data: corpus.txt is not there]")


def test_a_run_with_a_result_does_not_wait_whatever_the_queue_says(four):
    done = four.runs[0].run
    assert standings(four.runs, {done: "job 12 RUNNING"}, {})[0].to_json()["state"] == "completed"


def test_what_would_fail_again_is_told_with_the_command_that_starts_it(four):
    assert held_lines(four.runs, four.file) == [
        f"1 failed (data) and would fail again; repaired? gptopt sweep retry '{four.file}'"
        " --class data"
    ]
    assert four.summary() == "4 runs: 1 completed, 1 running, 1 to do, 1 failed and held back"
    assert four.runs[2] not in four.to_do


def test_stages_are_told_with_what_they_wait_for(planned, end):
    content = {"$stages": [{"lr": [1, 2]}, {"$top": 1, "wd": [0, 1, 2]}]}
    plan = planned(content)
    end(plan.runs[0].run, 1.0)
    assert stage_lines(planned(content).stages) == [
        "stage 1 of 2: 2 runs, 1 without a result",
        "stage 2 of 2: 3 runs at most, waits for stage 1",
    ]
    end(plan.runs[1].run, 2.0)
    assert stage_lines(planned(content).stages) == [
        "stage 1 of 2: 2 runs, all have a result",
        "stage 2 of 2: 3 runs, 3 without a result",
    ]


def test_the_time_left_is_unknown_before_the_first_step():
    assert Glimpse(0, 100, None, None).left_s is None


def test_a_glimpse_of_nothing_is_empty(tmp_path):
    assert glimpse(tmp_path / "nowhere") == Glimpse()
