"""disBatch on a real SLURM: run with ``pytest -n 0 -m slurm``."""

import json
from pathlib import Path

import pytest
from lab import job_of, runs, slurm, submit, until, until_queue_is_empty

from gptopt import layout
from gptopt.state import read_state

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

# Python imports it at the start of every process: what did the tasks see?
SITE = """
import json, os
if "DISBATCH_TASKID" in os.environ:
    names = ("SLURMD_NODENAME", "DISBATCH_CYLINDER_RANK", "CUDA_VISIBLE_DEVICES", "WANDB_API_KEY")
    with open({seen!r}, "a") as file:
        file.write(json.dumps([os.environ.get(name) for name in names]) + "\\n")
"""


@pytest.fixture
def sweep(place, tmp_path, monkeypatch):
    """Submits runs to disBatch; returns the finished process."""
    monkeypatch.setenv("WANDB_API_KEY", "5ecre7")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(SITE.format(seen=str(tmp_path / "seen")))

    def sweep(steps, seeds, *arguments):
        content = {"steps": steps, "seed": list(range(seeds))}
        return submit(content, "--via", "disbatch", *arguments)

    return sweep


@pytest.mark.parametrize("place", ["plain", "confined"], indirect=True)
def test_every_task_sees_its_own_gpu_and_then_nothing_is_left_to_do(sweep, tmp_path):
    places = ["cluster.nodes=2", "cluster.gpus_per_node=4"]
    job_of(sweep(400, 12, *places))
    assert sweep(400, 12, *places).stdout.endswith(", nothing to do\n")
    until_queue_is_empty()
    again = sweep(400, 12, *places)
    assert (again.returncode, again.stdout) == (0, "12 runs: 12 completed, nothing to do\n")
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len({node for node, *_ in seen}) == 2
    assert {(place, gpu) for _, place, gpu, _ in seen} == {(str(i), str(i)) for i in range(4)}
    assert {key for *_, key in seen} == {None}
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in written if b"5ecre7" in path.read_bytes()]


def test_ahead_of_its_end_the_job_saves_its_runs_and_goes_on_from_there(sweep):
    job = job_of(sweep(1500, 3, "cluster.workers=2"))
    first = until(lambda: len(found := _at_work()) == 2 and found)
    slurm("scancel", "--signal=USR1", "--batch", job)
    until(lambda: len(runs()) == 3 and {read_state(run).state for run in runs()} == {"completed"})
    for metrics in first:
        last = layout.metrics_files(metrics.parent)[-1][1]
        assert json.loads(last.read_text().splitlines()[0])["start_step"] > 0
    until_queue_is_empty()
    (log,) = Path("logs").rglob("*_disbatch.out")
    assert "SIGUSR1: 2 runs save and stop" in log.read_text()
    assert "0 failed, 0 unfinished" in log.read_text()


def _at_work():
    """Metrics of the runs that have done some steps."""
    files = Path("outputs").rglob("metrics.0001*")
    return [path for path in files if len(path.read_text().splitlines()) > 2]
