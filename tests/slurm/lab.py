"""What the tests on the virtual cluster share: a tiny sweep, its commands, and patience."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

from gptopt import layout
from gptopt.state import read_state

SUBMIT = layout.PROJECT / "slurm_scripts" / "submit.sh"
TINY = {
    "model.config.n_layer": 1,
    "model.config.n_embd": 16,
    "model.config.n_head": 1,
    "model.config.dropout_resid": 0.1,
    "data": "grammar",
    "data.tokens": 20000,
    "data.val_split": 2000,
    "bs": 2,
    "context_length": 32,
    "logging.logging_params.eval_tokens": 1024,
}
LONG = 1500  # steps: some seconds
PATIENCE_S = 120


def slurm(*command):
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def until(condition, patience=PATIENCE_S):
    """Waits for what ``condition`` returns to be true, and returns it."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, slurm("squeue", "--array")
        time.sleep(0.1)
    return found


def until_queue_is_empty(patience=PATIENCE_S):
    """Waits for all jobs to be gone."""
    until(lambda: not slurm("squeue", "--noheader"), patience)


def clear():
    """Cancels what is in the queue, and waits until it is gone."""
    slurm("scancel", "--user", str(os.getuid()))
    until_queue_is_empty()


def write(content, name="my sweep.json"):
    """A parameter file of tiny runs in the working directory."""
    Path(name).write_text(json.dumps(TINY | content))
    return name


def submit(content, *arguments):
    """Submits a sweep of tiny runs; the finished process."""
    command = [SUBMIT, write(content), "cluster.cpus_per_task=1", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def job_of(submission):
    """The number of the job that a submission has put into the queue."""
    assert submission.returncode == 0, submission
    return re.search(r"in the queue, job (\d+);", submission.stdout)[1]


def runs(where="outputs"):
    """Directories of all runs that were begun."""
    return sorted(path.parent for path in Path(where).rglob("attempts"))


def training(count=2):
    """Directories of ``count`` runs, once so many have trained some steps."""
    begun = [run for run in runs() if (run / "metrics.0001.jsonl").is_file()]
    return begun if len(begun) == count else None


def all_are(state):
    """A condition: every run has this state."""
    return lambda: {read_state(run).state for run in runs()} == {state}


def steps(run):
    """Step and loss of all training rows that count, as the reader of results merges them."""
    files = [path for _, path in layout.metrics_files(run)]
    attempts = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
    kept = {}
    for rows in attempts:
        begin = rows[0]["start_step"]
        kept = {step: loss for step, loss in kept.items() if step <= begin}
        kept |= {row["step"]: row["train_loss"] for row in rows if row["event"] == "train"}
    return kept


def is_as_undisturbed(content, *arguments):
    """Trains the same sweep here without any trouble: the same curves and weights?"""
    os.rename("outputs", "disturbed")
    local = submit(content, "--via", "local", *arguments)
    assert local.returncode == 0, local
    for run in runs():
        other = Path("disturbed") / run.relative_to("outputs")
        one, two = (json.loads((path / "completed.json").read_text()) for path in (run, other))
        if steps(run) != steps(other) or one["weights"] != two["weights"]:
            return False
    return len(runs()) == len(runs("disturbed"))
