"""disBatch: one allocation works through a file of tasks, a line per run.

With SLURM: one job, in which ``python -m gptopt.dispatch.disbatch <record>`` looks after disBatch.
Without: the same on this machine. disBatch only starts processes; what became of the runs is
read from their directories, so every launch gets a task file of those that are unfinished.

disBatch logs its whole environment, so names that look like secrets are taken out of it, and
its files lie in a directory that only their owner may enter.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gptopt import files, layout
from gptopt.config.schema import Cluster
from gptopt.dispatch import Submission, SubmissionError, local, slurm
from gptopt.state import ExitCode, job_name, read_state
from gptopt.sweep.record import JOB_MODULE, Record, Row

GPUS = "CUDA_VISIBLE_DEVICES"
SPLIT_GPUS = ["--env-resource", GPUS]  # entry i of the list for the task in place i of a node
NOTICE_S = 120  # before the time limit, or a quarter of it; runs also watch the clock
POLL_S = 0.5
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
PLAIN = re.compile(r"[\w./+@%:=-]+", re.ASCII)  # what a shell takes without quotes
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def submit(record: Record, cluster: Cluster) -> Submission:
    """Hands one job to SLURM and returns; without SLURM, works through the rows here."""
    return _enqueue(record, cluster) if slurm.is_here() else _work_here(record, cluster)


def batch_script(record: Record, cluster: Cluster) -> str:
    """The job: ``exec`` makes our process the one that SLURM signals, ahead of the end."""
    tasks = _tasks_per_node(cluster)
    memory = None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024 * tasks)}MB"
    asked = {
        "job-name": f"gptopt-{record.directory.parent.name}",
        "output": f"{str(record.logs).replace('%', '%%')}/%j_disbatch.out",
        "open-mode": "append",
        "nodes": cluster.nodes,
        "ntasks-per-node": tasks,
        "cpus-per-task": cluster.cpus_per_task,
        "gpus-per-node": cluster.gpus_per_node or None,
        "mem": memory,
        "time": cluster.timeout_min,
        "signal": f"B:USR1@{min(NOTICE_S, 15 * cluster.timeout_min)}",
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
    }
    command = [sys.executable, "-u", "-m", "gptopt.dispatch.disbatch", str(record.directory)]
    command += ["--no-retire", *(SPLIT_GPUS if cluster.gpus_per_node else [])]
    directives = [
        f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in asked.items()
        if value is not None
    ]
    lines = ["#!/bin/bash", *directives, "#SBATCH --requeue", *cluster.setup]
    return "\n".join([*lines, f"exec {shlex.join(command)}\n"])


def work(record: Record, attempt: int, options: Sequence[str], extra: Mapping[str, str]) -> None:
    """Runs disBatch over the unfinished rows of ``record`` until it ends.

    A signal asks the runs at work to save and stop, and starts no more; a second one kills.

    Args:
        record: The submission.
        attempt: Counts the launches; names the files of this one.
        options: For the command line of disBatch.
        extra: Added to the environment.
    """
    rows = unfinished(record)
    tasks = private_directory(record) / f"{attempt}.tasks"
    files.write(tasks, "".join(f"{_task(record, row)}\n" for row in rows))
    environment = os.environ | extra
    secrets = sorted(name for name in environment if SECRET.search(name))
    if secrets:
        print(f"withheld from disBatch and its runs: {', '.join(secrets)}")
    with _plain_directory(record) as directory, _requests() as requests:
        command = [sys.executable, "-m", "disbatch", "--exit-code", *options]
        process = subprocess.Popen(
            [*command, "--prefix", str(directory / str(attempt)), str(tasks)],
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in environment.items() if name not in secrets},
            start_new_session=True,  # a terminal's Ctrl-C comes here alone
        )
        asked: list[Path] = []
        while process.poll() is None:
            if requests and not asked:
                asked = [Path(row.run) for row in rows if _is_running(row.run)]
                print(f"{requests[0].name}: {len(asked)} runs save and stop", flush=True)
                for run in asked:
                    (run / layout.STOP_FILE).touch()
            if len(requests) > 1 or (requests and not any(map(_is_running, asked))):
                os.killpg(process.pid, signal.SIGTERM)  # it would start the runs that wait
                process.wait()
            time.sleep(POLL_S)
        for run in asked:  # only a person's stop file keeps a run out of the next launch
            (run / layout.STOP_FILE).unlink(missing_ok=True)


def unfinished(record: Record) -> list[Row]:
    """Submitted rows that have no result, and neither failed nor were stopped by a person since."""
    return [
        row
        for row in record.submitted()
        if read_state(Path(row.run)).state not in ("completed", "diverged")
        and not _since(record, row, layout.TERMINAL["failed"])
        and not _since(record, row, layout.STOP_FILE)
    ]


def private_directory(record: Record) -> Path:
    """Task files, and what disBatch writes; nobody else may look into it."""
    directory = record.directory / "disbatch"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def main(directory: str, *options: str) -> ExitCode:
    """Inside the job: works, then asks SLURM for another turn where one would help."""
    record = Record(Path(directory))
    before = {row.run: read_state(Path(row.run)) for row in unfinished(record)}
    if before:
        end = slurm.ask("squeue", "--noheader", "--jobs", job_name(), "-o", "%e").strip()
        deadline = {"GPTOPT_DEADLINE": end} if re.match(r"\d{4}-", end) else {}  # else unlimited
        work(record, int(os.environ.get("SLURM_RESTART_COUNT") or 0), options, deadline)
    left = unfinished(record)
    now = {run: read_state(Path(run)) for run in before}
    got_on = any(state.terminal or state.step > before[run].step for run, state in now.items())
    print(f"{_failed(record)} failed, {len(left)} unfinished", flush=True)
    if left and not (got_on and slurm.requeue()):
        print("not requeued by us; submitting the sweep again goes on from the checkpoints")
    return _code(record, left)


def _enqueue(record: Record, cluster: Cluster) -> Submission:
    rows = record.submitted()
    script = private_directory(record) / "batch.sh"
    files.write(script, batch_script(record, cluster))
    threads = str(cluster.threads or cluster.cpus_per_task)
    pinned = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with slurm.environment(pinned | {name: str(value) for name, value in cluster.env.items()}):
        try:
            job = slurm.run("sbatch", "--parsable", str(script)).strip().split(";")[0]
        except subprocess.CalledProcessError as error:
            raise SubmissionError(f"Nothing was submitted. {error.stderr.strip()}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise SubmissionError(f"Nothing was submitted. {error}") from None
    record.note_jobs(job, rows)
    return Submission(f"{len(rows)} runs in the queue, job {job}; logs: {record.logs}", [job])


def _work_here(record: Record, cluster: Cluster) -> Submission:
    slots = local.environments(cluster)
    extra = dict(slots[0])
    options = ["--ssh-node", f"localhost:{len(slots)}", "--use-address", "localhost:0"]
    if GPUS in extra:
        extra[GPUS] = ",".join(slot[GPUS] for slot in slots)
        options += SPLIT_GPUS
    work(record, 0, options, extra)
    failed, left = _failed(record), len(unfinished(record))
    return Submission(f"{failed} failed, {left} unfinished", failed=failed, unfinished=left)


def _tasks_per_node(cluster: Cluster) -> int:
    return cluster.gpus_per_node or cluster.workers or 1


def _task(record: Record, row: Row) -> str:
    command = [sys.executable, "-m", JOB_MODULE, str(record.directory), str(row.index)]
    return f"{shlex.join(command)} >> {shlex.quote(str(record.log(row.index)))} 2>&1"


@contextmanager
def _plain_directory(record: Record) -> Iterator[Path]:
    """Where disBatch writes. Its scripts quote no path: an awkward one is kept away from them."""
    directory = private_directory(record).resolve()
    if PLAIN.fullmatch(str(directory)):
        yield directory
    else:  # the home directory: other nodes see it, too
        with tempfile.TemporaryDirectory(prefix=".gptopt-disbatch-", dir=Path.home()) as plain:
            yield Path(plain)


@contextmanager
def _requests() -> Iterator[list[signal.Signals]]:
    """The signals to stop that came while it is entered."""
    came: list[signal.Signals] = []
    previous = {
        number: signal.signal(number, lambda received, _: came.append(signal.Signals(received)))
        for number in STOP_SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN  # nohup, or a background job
    }
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_running(run: str | Path) -> bool:
    return read_state(Path(run)).state == "running"


def _since(record: Record, row: Row, name: str) -> bool:
    """Whether a file of a run is younger than the submission."""
    try:
        written = (Path(row.run) / name).stat().st_mtime
    except FileNotFoundError:
        return False
    return written > (record.directory / "plan.jsonl").stat().st_mtime


def _failed(record: Record) -> int:
    return sum(_since(record, row, layout.TERMINAL["failed"]) for row in record.submitted())


def _code(record: Record, left: Sequence[Row]) -> ExitCode:
    if _failed(record):
        return ExitCode.CRASH
    return ExitCode.RUN_AGAIN if left else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(int(main(*sys.argv[1:])))
