"""disBatch on a real SLURM: run with ``pytest -n 0 -m slurm``."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptopt import layout
from gptopt.state import read_state

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SUBMIT = layout.PROJECT / "slurm_scripts" / "submit.sh"
TINY = {
    "model.config.n_layer": 1,
    "model.config.n_embd": 16,
    "model.config.n_head": 1,
    "data": "grammar",
    "data.tokens": 20000,
    "data.val_split": 2000,
    "bs": 2,
    "context_length": 32,
    "logging.logging_params.eval_tokens": 1024,
}
PATIENCE_S = 120
# Python imports it at the start of every process: what did the tasks see?
SITE = """
import json, os
if "DISBATCH_TASKID" in os.environ:
    names = ("SLURMD_NODENAME", "DISBATCH_CYLINDER_RANK", "CUDA_VISIBLE_DEVICES", "WANDB_API_KEY")
    with open({seen!r}, "a") as file:
        file.write(json.dumps([os.environ.get(name) for name in names]) + "\\n")
"""


def slurm(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def until(condition):
    """Waits for what ``condition`` returns to be true, and returns it."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, slurm("squeue")
        time.sleep(0.1)
    return found


@pytest.fixture
def sweep(cluster, tmp_path, monkeypatch):
    """Submits eight runs from a directory with an awkward name; returns the finished process."""
    directory = tmp_path / "it's here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("WANDB_API_KEY", "5ecre7")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(SITE.format(seen=str(tmp_path / "seen")))

    def sweep(steps, seeds, *arguments):
        content = TINY | {"steps": steps, "seed": list(range(seeds))}
        Path("my sweep.json").write_text(json.dumps(content))
        command = [SUBMIT, "my sweep.json", "--via", "disbatch", "cluster.cpus_per_task=1"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    yield sweep
    slurm("scancel", "--user", str(os.getuid()))
    until(lambda: not slurm("squeue", "--noheader"))


def job_of(submission):
    assert submission.returncode == 0, submission
    return re.search(r"in the queue, job (\d+);", submission.stdout)[1]


def runs():
    return sorted(path.parent for path in Path("outputs").rglob("attempts"))


def test_every_task_sees_its_own_gpu_and_then_nothing_is_left_to_do(sweep, tmp_path):
    places = ["cluster.nodes=2", "cluster.gpus_per_node=4"]
    job_of(sweep(400, 8, *places))
    assert sweep(400, 8, *places).stdout == "8 runs: 8 pending, nothing to do\n"
    until(lambda: not slurm("squeue", "--noheader"))
    again = sweep(400, 8, *places)
    assert (again.returncode, again.stdout) == (0, "8 runs: 8 completed, nothing to do\n")
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len({node for node, *_ in seen}) == 2
    assert {(place, gpu) for _, place, gpu, _ in seen} == {(str(i), str(i)) for i in range(4)}
    assert {key for *_, key in seen} == {None}
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in written if b"5ecre7" in path.read_bytes()]


def test_ahead_of_its_end_the_job_saves_its_runs_and_goes_on_from_there(sweep):
    job = job_of(sweep(1500, 3, "cluster.workers=2"))
    first = until(lambda: len(found := list(Path("outputs").rglob("metrics.0001*"))) == 2 and found)
    slurm("scancel", "--signal=USR1", "--batch", job)
    until(lambda: len(runs()) == 3 and {read_state(run).state for run in runs()} == {"completed"})
    for metrics in first:
        last = layout.metrics_files(metrics.parent)[-1][1]
        assert json.loads(last.read_text().splitlines()[0])["start_step"] > 0
    until(lambda: not slurm("squeue", "--noheader"))
    (log,) = Path("logs").rglob("*_disbatch.out")
    assert "SIGUSR1: 2 runs save and stop" in log.read_text()
    assert "0 failed, 0 unfinished" in log.read_text()
