"""The record of a submission, and the job that runs from it."""

import json

import pytest

from gptopt import job, layout
from gptopt.sweep.failures import Failure
from gptopt.sweep.record import Record, records, refusals


def test_a_record_holds_the_sweep_as_it_was(planned, tmp_path):
    both = planned({"optimizer": "muon", "seed": [0, 1]})
    both.runs[0].run.mkdir(parents=True)
    (both.runs[0].run / layout.TERMINAL["completed"]).write_text("{}")
    record = Record.create(planned({"optimizer": "muon", "seed": [0, 1]}), tmp_path / "logs")
    assert record.directory == tmp_path / "logs" / "a_sweep" / "run_info_1"
    assert json.loads((record.directory / "params.json").read_text())["optimizer"] == "muon"
    for name in ("config.yaml", "optimizer/muon.yaml", "hydra/launcher/slurm.yaml"):
        assert (record.conf / name).read_text() == (layout.HYDRA_CONF / name).read_text()
    assert [(row.index, row.is_submitted, row.run) for row in record.rows()] == [
        (0, False, str(both.runs[0].run)),
        (1, True, str(both.runs[1].run)),
    ]
    assert record.row(1).overrides == both.runs[1].overrides + both.runs[1].frozen
    assert record.submitted() == [record.row(1)]


def test_a_run_that_is_refused_is_remembered_until_it_is_submitted_again(planned, tmp_path):
    one, sweeps = planned({"data": "text", "data.path": "lost.txt"}), tmp_path / "logs"
    first = Record.create(one, sweeps)
    assert job.run(first.directory, 0) == 65
    words = "refused before it began, see its log in run_info_1/logs"
    assert refusals([first]) == {one.runs[0].run: Failure("data", words)}
    assert not one.runs[0].run.exists()
    assert refusals([first, Record.create(one, sweeps)]) == {}


def test_numbers_of_records_go_up_and_are_not_used_again(planned, tmp_path):
    one, sweeps = planned({"seed": 0}), tmp_path / "logs"
    first, second = Record.create(one, sweeps), Record.create(one, sweeps)
    (first.directory / "plan.jsonl").unlink()
    first.directory.rename(first.directory.with_name("kept"))
    third = Record.create(one, sweeps)
    names = [record.directory.name for record in (first, second, third)]
    assert names == ["run_info_1", "run_info_2", "run_info_3"]
    assert [record.directory for record in records(sweeps, one.name)] == [
        second.directory,
        third.directory,
    ]


def test_a_job_composes_from_its_record_and_refuses_what_was_not_planned(planned, tmp_path, capsys):
    record = Record.create(planned({"seed": 3}), tmp_path / "logs")
    adamw = record.conf / "optimizer" / "adamw.yaml"
    adamw.write_text(adamw.read_text().replace("eps: 1.0e-8", "eps: 1.0e-7"))
    assert job.run(record.directory, 0) == 2
    message = capsys.readouterr().err
    assert "but was planned as" in message
    assert "Submit the sweep again." in message
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(("index", "message"), [(7, "has no run 7"), (0, "not a sweep's record")])
def test_a_job_without_its_row_says_so(planned, tmp_path, capsys, index, message):
    record = Record.create(planned({"seed": 3}), tmp_path / "logs")
    directory = record.directory if index else tmp_path
    assert job.run(directory, index) == 2
    assert message in capsys.readouterr().err
