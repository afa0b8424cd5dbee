"""SLURM through submitit, with stand-ins for its commands; tests/slurm has a real cluster."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from gptopt import dispatch, layout
from gptopt.dispatch import slurm
from gptopt.state import ExitCode

SBATCH = """#!/bin/sh
number=$(ls {tmp}/sbatch-*.sh 2>/dev/null | wc -l)
if [ $number -ge {accepted} ]; then echo "sbatch: error: {refusal}" >&2; exit 1; fi
cp "$1" {tmp}/sbatch-$number.sh
env > {tmp}/env-$number
echo "Submitted batch job 10$number"
"""
COMMAND = """#!/bin/sh
echo "$0" "$@" >> {tmp}/calls
{body}
"""


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Stand-ins for the commands of SLURM; returns what sets how they behave."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def command(name, body):
        (tools / name).write_text(body)
        (tools / name).chmod(0o755)

    def fake(*, accepted=99, refusal="no", array_size=1001, queue="", requeue="true"):
        conf = f'echo "MaxArraySize            = {array_size}"'
        scontrol = f'if [ "$1" = requeue ]; then {requeue}; else {conf}; fi'
        command("sbatch", SBATCH.format(tmp=tmp_path, accepted=accepted, refusal=refusal))
        command("scontrol", COMMAND.format(tmp=tmp_path, body=scontrol))
        command("squeue", COMMAND.format(tmp=tmp_path, body=f"printf '{queue}'"))
        command("scancel", COMMAND.format(tmp=tmp_path, body=""))
        command("srun", "#!/bin/sh")

    fake()
    return fake


def submit(recorded, runs, *overrides):
    record, cluster = recorded({"seed": list(range(runs))}, "cluster=slurm", *overrides)
    return record, dispatch.backend("submitit").submit(record, cluster)


GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-2%2
#SBATCH --cpus-per-task=3
#SBATCH --gpus-per-node=1
#SBATCH --job-name=gptopt-sweep
#SBATCH --mem=1536MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output={logs}/%A_%a_0_log.out
#SBATCH --partition='a b'
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=90
#SBATCH --wckey=submitit

# setup
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {logs}/%A_%a_%t_log.out --cpus-per-task=3 \
{python} -u -m submitit.core._submit {logs}
"""


def test_the_batch_file_says_what_the_cluster_file_says(recorded, fake_slurm, tmp_path):
    settings = ["partition='a b'", "account=lab", "mem_gb=1.5", "cpus_per_task=3", "timeout_min=90"]
    settings += ["gpus_per_node=1", "array_parallelism=2", "setup=[module load cuda]"]
    record, submission = submit(recorded, 3, *(f"cluster.{setting}" for setting in settings))
    expected = GOLDEN.format(logs=record.logs, python=sys.executable)
    assert (tmp_path / "sbatch-0.sh").read_text() == expected
    assert submission.jobs == ["100"]
    assert submission.message == f"3 runs in the queue, job 100; logs: {record.logs}"


def test_a_packed_job_asks_for_what_its_runs_need_together(recorded, fake_slurm, tmp_path):
    settings = ["gpus_per_node=2", "workers_per_gpu=3", "runs_per_job=7", "gres='gpu:a100'"]
    settings += ["cpus_per_task=4", "mem_gb=1.5", "signal_delay_s=300", "timeout_min=120"]
    record, _ = submit(recorded, 16, *(f"cluster.{setting}" for setting in settings))
    text = (tmp_path / "sbatch-0.sh").read_text()
    asked = ["--array=0-2%3", "--gres=gpu:a100:2", "--cpus-per-task=24", "--mem=9216MB"]
    for setting in (*asked, "--signal=USR2@300"):
        assert f"#SBATCH {setting}\n" in text
    assert "gpus-per-node" not in text
    jobs = [record.logs / f"100_{element}_submitted.pkl" for element in range(3)]
    assert [pickle.loads(job.read_bytes()).args for job in jobs] == [(0,), (7,), (14,)]


def test_jobs_with_a_copy_of_the_code_do_not_see_later_edits(recorded, fake_slurm, tmp_path):
    record, _ = submit(recorded, 2, "cluster.snapshot_source=true")
    told = dict(line.split("=", 1) for line in (tmp_path / "env-0").read_text().splitlines())
    code = "import gptopt.job, gptopt.layout; print(gptopt.layout.PROJECT)"
    answer = subprocess.run(  # from the project itself, where the edited code lies
        [sys.executable, "-c", code], cwd=layout.PROJECT, env=told, capture_output=True, text=True
    )
    assert answer.stdout == f"{record.directory / 'source'}\n", answer.stderr
    copied = {path.name for path in (record.directory / "source").iterdir()}
    assert copied == {"gptopt", "run_hydra.py", "hydra_conf", "commit.json"}


def test_arrays_are_no_longer_than_the_cluster_takes(recorded, fake_slurm, tmp_path):
    fake_slurm(array_size=3)
    record, submission = submit(recorded, 7)
    files = sorted(tmp_path.glob("sbatch-*.sh"))
    arrays = [line for file in files for line in file.read_text().splitlines() if "--array" in line]
    assert arrays == ["#SBATCH --array=0-2%3", "#SBATCH --array=0-2%3"]  # and the last run alone
    assert submission.jobs == ["100", "101", "102"]
    rows = list(record.rows())
    assert record.jobs() == {
        Path(row.run): (f"10{index // 3}", index % 3) for index, row in enumerate(rows)
    }


def test_runs_in_the_queue_are_found_there(recorded, fake_slurm, monkeypatch):
    record, _ = submit(recorded, 3)
    runs = [Path(row.run) for row in record.rows()]
    waits = "100 0 RUNNING None\\n100 2 PENDING Priority\\n55 1 RUNNING None\\n56 N/A RUNNING No\\n"
    fake_slurm(queue=waits)
    assert slurm.pending([record]) == {runs[0], runs[2]}
    places = {runs[0]: ("100_0", "RUNNING", ""), runs[2]: ("100_2", "PENDING", "Priority")}
    monkeypatch.setattr(slurm, "_answer", None)
    assert slurm.queue([record]) == places
    fake_slurm(queue="'; exit 1; '")
    assert slurm.pending([record]) == set()
    assert slurm.queue([record]) == places  # the answer is less than half a minute old


def test_any_element_of_a_packed_array_stands_for_all_its_runs(recorded, fake_slurm):
    record, _ = submit(recorded, 5, "cluster.runs_per_job=2")
    runs = {Path(row.run) for row in record.rows()}
    fake_slurm(queue="100 0 PENDING Priority\\n100 1 RUNNING None\\n")
    assert slurm.pending([record]) == runs
    fake_slurm(queue="101 0 RUNNING None\\n")
    assert slurm.pending([record]) == set()


def test_only_jobs_with_our_number_and_our_name_are_cancelled(recorded, fake_slurm, tmp_path):
    record, _ = submit(recorded, 3)
    queue = "100 RUNNING gptopt-sweep\\n100 PENDING gptopt-sweep\\n7 RUNNING gptopt-sweep\\n"
    fake_slurm(queue=queue)
    assert dispatch.cancel(record) == 2
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("/")[-1] for call in calls if "scancel" in call] == ["scancel 100"]
    record.note_next("102")
    fake_slurm(queue="100 RUNNING of another\\n102 PENDING gptopt-sweep-next\\n")
    assert dispatch.cancel(record) == 1
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith("scancel 102")
    fake_slurm(queue="100 RUNNING of another\\n")
    assert dispatch.cancel(record) == 0
    assert (tmp_path / "calls").read_text().count("scancel") == 2


def test_a_refusal_is_told_in_the_words_of_sbatch(recorded, fake_slurm):
    fake_slurm(accepted=0, refusal="invalid partition specified: nope")
    record, cluster = recorded({"seed": [0, 1]}, "cluster=slurm", "cluster.partition=nope")
    words = "Nothing was submitted. sbatch: error: invalid partition specified: nope"
    with pytest.raises(dispatch.SubmissionError, match=words):
        dispatch.backend("submitit").submit(record, cluster)
    assert record.jobs() == {}


def test_a_refusal_half_way_tells_what_is_in_the_queue(recorded, fake_slurm):
    fake_slurm(accepted=1, array_size=2, refusal="too many jobs")
    record, cluster = recorded({"seed": [0, 1, 2]}, "cluster=slurm")
    with pytest.raises(dispatch.SubmissionError, match="^2 of 3 runs were submitted.*too many"):
        dispatch.backend("submitit").submit(record, cluster)
    assert len(record.jobs()) == 2


def test_a_job_does_not_inherit_the_marks_of_a_job_around_it(
    recorded, fake_slurm, tmp_path, monkeypatch
):
    conf = tmp_path / "slurm.conf"
    conf.touch()
    marks = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "9", "SBATCH_PARTITION": "x"}
    for name, value in (marks | {"SLURM_CONF": str(conf)}).items():
        monkeypatch.setenv(name, value)
    submit(recorded, 2, "+cluster.env.COLOUR=blue", "cluster.cpus_per_task=5")
    told = dict(line.split("=", 1) for line in (tmp_path / "env-0").read_text().splitlines())
    assert not marks.keys() & told.keys()
    assert (told["SLURM_CONF"], told["COLOUR"]) == (str(conf), "blue")
    assert (told["OMP_NUM_THREADS"], told["MKL_NUM_THREADS"]) == ("5", "5")
    assert os.environ["SLURM_JOB_ID"] == "7"
    assert "COLOUR" not in os.environ


def test_no_secret_of_the_environment_is_in_any_file(recorded, fake_slurm, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "5ecre7")
    record, _ = submit(recorded, 2)
    files = [path for path in record.directory.rglob("*") if path.is_file()]
    assert {"plan.jsonl", "jobs.jsonl", "100_submission.sh", "100_0_submitted.pkl"} <= {
        path.name for path in files
    }
    assert not [path for path in files if b"5ecre7" in path.read_bytes()]


@pytest.mark.parametrize(
    ("code", "state", "steps", "in_slurm", "requeued"),
    [
        (ExitCode.RUN_AGAIN, "preempted", 5, "RUNNING", True),
        (ExitCode.RUN_AGAIN, "preempted", 0, "RUNNING", False),  # the third without a step
        (ExitCode.RUN_AGAIN, "preempted", 5, "CANCELLED", False),  # by scancel
        (ExitCode.RUN_AGAIN, "preempted", 5, "COMPLETING", False),  # SLURM does it
        (ExitCode.RUN_AGAIN, "interrupted", 5, "RUNNING", False),  # a person asked it to stop
        (ExitCode.DONE, "completed", 5, "RUNNING", False),
        (ExitCode.CRASH, "failed", 5, "RUNNING", False),
    ],
)
def test_only_a_preempted_run_of_a_running_job_is_queued_again(
    recorded, fake_slurm, tmp_path, monkeypatch, code, state, steps, in_slurm, requeued
):
    fake_slurm(queue=f"{in_slurm}\\n")
    record, _ = submit(recorded, 2)
    run = Path(record.row(1).run)
    (run / layout.ATTEMPTS).mkdir(parents=True)
    status = {"state": state, "attempt": 3, "step": 40 + steps, "saved_step": 40 + steps}
    (run / layout.STATUS).write_text(json.dumps(status))
    for attempt in (1, 2, 3):
        layout.attempt_file(run, attempt).write_text(json.dumps({"start_step": 40, "ended": 1.0}))
    (tmp_path / "fake_job.py").write_text(f"import sys; sys.exit({int(code)})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gptopt.dispatch.submitit.JOB_MODULE", "fake_job")
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name, value in {"JOB_ID": "12", "ARRAY_JOB_ID": "10", "ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    (job,) = record.logs.glob("100_1_submitted.pkl")
    with open(job, "rb") as file:
        delayed = pickle.load(file)
    with pytest.raises(SystemExit) as ended:
        delayed.result()
    assert ended.value.code == code
    calls = (tmp_path / "calls").read_text()
    assert ("scontrol requeue 10_1" in calls) == requeued
    assert delayed.function.checkpoint(*delayed.args).args == delayed.args


def test_a_machine_without_sbatch_or_without_its_configuration_has_no_slurm(
    fake_slurm, tmp_path, monkeypatch
):
    monkeypatch.delenv("SLURM_CONF", raising=False)
    assert slurm.is_here()
    # what the clients of Debian's packages print where no cluster is configured
    words = "scontrol: fatal: Could not establish a configuration source"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    assert not slurm.is_here()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "gone.conf"))
    assert not slurm.is_here()
    monkeypatch.delenv("SLURM_CONF")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.is_here()
