"""Runs that are forks of one process, against the same runs in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import POINT as TINY
from tiny import result

from gptopt.dispatch import local, prepare
from gptopt.dispatch.packed import drain

STEPS = "training.training_params.max_steps"
OTHERS = [
    {"seed": 0},
    {"optimizer": "muon", "training.training_params.deterministic": True},
    {"lr": 1e9},
    {"model": "llama2", "optimizer": "dap-ns-nadam", "dtype": "bfloat16", "seed": 5},
    {"seed": 1},
]


@pytest.mark.slow
def test_runs_that_follow_others_are_bit_identical_to_runs_in_processes_of_their_own(recorded):
    lost = {"data": "text", "data.path": "lost.txt", "data.val_split": 0.1}
    grammar = {"data": "grammar"} | {key: TINY[key] for key in TINY if key.startswith("data.")}
    plain = {key: TINY[key] for key in TINY if not key.startswith("data")}
    content = plain | {STEPS: 6, "$each": [lost, *(grammar | other for other in OTHERS)]}
    found = []
    for where, runs_per_job in (("forked", "null"), ("cold", "1")):
        settings = ["cluster.workers=1", "cluster.threads=1"]
        settings.append(f"cluster.runs_per_job={runs_per_job}")
        record, cluster = recorded(content, f"paths.output_dir={where}", *settings)
        submission = local.submit(record, cluster)
        assert (submission.failed, submission.unfinished) == (1, 0)
        assert "lost.txt" in record.log(0).read_text()
        ended = [Path(row.run) for row in record.rows() if row.index != 0]
        assert [(run / "diverged.json").is_file() for run in ended] == [
            "lr" in other for other in OTHERS
        ]
        found.append([result(run) for run in ended if (run / "completed.json").is_file()])
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_the_process_that_is_forked_has_one_thread_and_knows_no_gpu():
    # CUDA cannot be used in a fork of a process that has used it, nor can threads be copied
    look = "import gptopt.training, torch; print(torch.cuda.is_initialized())"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert answer.stdout == "False\n"
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    origin = subprocess.Popen(
        [sys.executable, "-m", "gptopt.warm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | threads,
    )
    pid = json.loads(origin.stdout.readline())["ready"]
    assert len(os.listdir(f"/proc/{pid}/task")) == 1
    origin.communicate()
    assert origin.returncode == 0


@pytest.mark.parametrize("kind", ["forked"], indirect=True)
def test_a_packed_job_gives_every_run_one_of_its_gpus(fake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    settings = ["cluster.gpus_per_node=2", "cluster.workers_per_gpu=2", "cluster.runs_per_job=8"]
    record, cluster = fake([0] * 6, "cluster=slurm", *settings)
    prepare(record, cluster)
    submission = drain(record, 3, workers=1)
    assert submission.message == "all ended"
    seen = [
        json.loads((record.directory / f"told-{index}.json").read_text())["CUDA_VISIBLE_DEVICES"]
        for index in (3, 4, 5, 0)
    ]
    assert seen == ["2", "2", "5", "5"]
