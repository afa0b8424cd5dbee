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
from gptopt.dispatch import (
    Submission,
    SubmissionError,
    exported,
    local,
    packed,
    prepare,
    slurm,
    submitted_with,
)
from gptopt.dispatch.local import GPUS
from gptopt.dispatch.rest import TURN_OVER, Turn, failed, is_cancelled, is_running, unfinished
from gptopt.state import ExitCode
from gptopt.sweep.record import JOB_MODULE, Record, Row

SPLIT_GPUS = ["--env-resource", GPUS]  # entry i of the list for the task in place i of a node
POLL_S = 0.5
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
PLAIN = re.compile(r"[\w./+@%:=-]+", re.ASCII)  # what a shell takes without quotes
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def submit(record: Record, cluster: Cluster) -> Submission:
    """Hands one job to SLURM and returns; without SLURM, works through the rows here."""
    prepare(record, cluster)
    return _enqueue(record, cluster) if slurm.is_here() else _work_here(record, cluster)


def batch_script(record: Record, cluster: Cluster) -> str:
    """The job: ``exec`` makes our process the one that SLURM signals, ahead of the end."""
    tasks, at_once = _tasks_per_node(cluster), _at_once(cluster)
    memory = cluster.mem_gb and f"{round(cluster.mem_gb * 1024 * tasks * at_once)}MB"
    gpus = cluster.gpus_per_node or None
    asked = {
        "job-name": slurm.name(record),
        "output": f"{str(record.logs).replace('%', '%%')}/%j_disbatch.out",
        "open-mode": "append",
        "nodes": cluster.nodes,
        "ntasks-per-node": tasks,
        "cpus-per-task": cluster.cpus_per_task * at_once,
        "gpus-per-node": gpus if cluster.gres is None else None,
        "gres": gpus and cluster.gres and f"{cluster.gres}:{gpus}",
        "mem": memory,
        "time": cluster.timeout_min,
        "signal": f"B:USR1@{slurm.notice(cluster)}",
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
    over = private_directory(record) / f"{attempt}.over"
    files.write(tasks, "".join(f"{task}\n" for task in _tasks(record, rows)))
    environment = os.environ | extra | {TURN_OVER: str(over)}
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
        asked: set[Path] = set()
        while process.poll() is None:
            if (requests or is_cancelled(record)) and not over.exists():
                over.touch()  # packed tasks take no further run
                print(f"{requests[0].name if requests else 'cancelled'}: ", end="")
                print(f"{sum(is_running(row.run) for row in rows)} runs save and stop", flush=True)
            running = [Path(row.run) for row in rows if over.exists() and is_running(row.run)]
            for run in running:
                (run / layout.STOP_FILE).touch()
                asked.add(run)
            if len(requests) > 1 or (over.exists() and not running):
                os.killpg(process.pid, signal.SIGTERM)  # it would start the runs that wait
                process.wait()
            time.sleep(POLL_S)
        for run in asked:  # only a person's stop file keeps a run out of the next launch
            (run / layout.STOP_FILE).unlink(missing_ok=True)


def private_directory(record: Record) -> Path:
    """Task files, and what disBatch writes; nobody else may look into it."""
    directory = record.directory / slurm.DISBATCH
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def main(directory: str, *options: str) -> ExitCode:
    """Inside the job: works, then asks SLURM for another turn where one would help."""
    record = Record(Path(directory))
    turn = Turn(record, submitted_with(record).attempts_without_progress)
    if turn.rows and not is_cancelled(record):
        attempt = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        work(record, attempt, options, slurm.deadline())
    left = unfinished(record)
    print(f"{failed(record)} failed, {len(left)} unfinished", flush=True)
    if left and not (turn.another_helps(left) and slurm.requeue()):
        print("not requeued by us; submitting the sweep again goes on from the checkpoints")
    return _code(record, left)


def _enqueue(record: Record, cluster: Cluster) -> Submission:
    rows = record.submitted()
    script = private_directory(record) / "batch.sh"
    files.write(script, batch_script(record, cluster))
    with slurm.environment(exported(record, cluster, threads=cluster.cpus_per_task)):
        try:
            job = slurm.run("sbatch", "--parsable", str(script)).strip().split(";")[0]
        except subprocess.CalledProcessError as error:
            raise SubmissionError(f"Nothing was submitted. {error.stderr.strip()}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise SubmissionError(f"Nothing was submitted. {error}") from None
    record.note_jobs(job, rows, apart=False)
    told = f"{len(rows)} run{'s' * (len(rows) != 1)} in the queue, job {job}"
    return Submission(f"{told}; logs: {record.logs}", [job])


def _work_here(record: Record, cluster: Cluster) -> Submission:
    places = local.environments(record, cluster)  # they come GPU by GPU, round after round
    places = places[: max(1, len(places) // _at_once(cluster))]
    extra = dict(places[0])
    options = ["--ssh-node", f"localhost:{len(places)}", "--use-address", "localhost:0"]
    if GPUS in extra:
        extra[GPUS] = ",".join(place[GPUS] for place in places)
        options += SPLIT_GPUS
    work(record, 0, options, extra)
    count, left = failed(record), len(unfinished(record))
    return Submission(f"{count} failed, {left} unfinished", failed=count, unfinished=left)


def _tasks_per_node(cluster: Cluster) -> int:
    return cluster.gpus_per_node or cluster.workers or 1


def _at_once(cluster: Cluster) -> int:
    """Runs at the same time in one task."""
    return cluster.workers_per_gpu if cluster.gpus_per_node else 1


def _tasks(record: Record, rows: Sequence[Row]) -> Iterator[str]:
    cluster = submitted_with(record)
    if packed.is_wanted(cluster):
        for first in packed.firsts(cluster, len(rows), _at_once(cluster)):
            yield _line(packed.__name__, record, first, record.logs / f"packed-{first}.log")
    else:
        for row in rows:
            yield _line(JOB_MODULE, record, row.index, record.log(row.index))


def _line(module: str, record: Record, number: int, log: Path) -> str:
    command = [sys.executable, "-m", module, str(record.directory), str(number)]
    return f"{shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"


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


def _code(record: Record, left: Sequence[Row]) -> ExitCode:
    if failed(record):
        return ExitCode.CRASH
    return ExitCode.RUN_AGAIN if left else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(int(main(*sys.argv[1:])))
