"""A SLURM array through submitit: an element per run, or per several, and nobody waits for it.

submitit writes the batch file and brings a Python to the node; the rest is ours. The run's
own process answers the signals (it saves at the next step border and ends with 75), then asks
SLURM to start the job again. What SLURM or submitit believe of a run is never read.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError

from gptopt.config.schema import Cluster
from gptopt.dispatch import (
    Submission,
    SubmissionError,
    exported,
    packed,
    prepare,
    slurm,
    submitted_with,
)
from gptopt.dispatch.rest import Turn, is_cancelled, is_stuck, may_go_on, unfinished
from gptopt.state import ExitCode
from gptopt.sweep.record import JOB_MODULE, Record

MANY_TIMEOUTS = 10**6  # submitit counts them only while no run is at work: importing, ending


def submit(record: Record, cluster: Cluster) -> Submission:
    """Hands the submitted rows to SLURM, in arrays no longer than it takes, and returns."""
    rows = record.submitted()
    is_packed = packed.is_wanted(cluster)
    jobs: list[str] = []
    prepare(record, cluster)
    with slurm.environment(exported(record, cluster, threads=cluster.cpus_per_task)):
        executor = _executor(record, cluster)
        limit = slurm.max_array_size()
        elements: list[tuple[object, ...]] = [(row.index, row.run) for row in rows]
        if is_packed:
            elements = [(first,) for first in packed.firsts(cluster, len(rows), _at_once(cluster))]
        for start in range(0, len(elements), limit):
            chunk = elements[start : start + limit]
            job = Drain(record.directory) if is_packed else Job(record.directory)
            try:
                jobs.append(_submit_array(executor, job, chunk))
            except FailedJobError as error:
                if is_packed and start:
                    break  # what is in the queue works through all rows
                before = f"{start} of {len(rows)} runs were" if start else "Nothing was"
                raise SubmissionError(f"{before} submitted. {str(error).strip()}") from None
            if is_packed:
                record.note_jobs(jobs[-1], rows, apart=False)
            else:
                record.note_jobs(jobs[-1], rows[start : start + limit])
    many, plural = "s" * (len(rows) != 1), "s" * (len(jobs) > 1)
    told = f"{len(rows)} run{many} in the queue, job{plural} {', '.join(jobs)}"
    message = f"{told}; logs: {record.logs}"
    return Submission(message, jobs=jobs)


class Job:
    """What an array element does: the same as ``python -m gptopt.job``. submitit pickles it."""

    def __init__(self, record: Path) -> None:
        self.record = str(record)

    def __call__(self, index: int, run: str) -> None:
        """Trains row ``index``, whose directory is ``run``, and ends the process with its code.

        submitit only sees ``Exception``, so the code reaches SLURM: a crash is FAILED there.
        """
        sys.argv = [JOB_MODULE, self.record, str(index)]
        code: object = None
        try:
            runpy.run_module(JOB_MODULE, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        if code == ExitCode.RUN_AGAIN and not self._requeue(Path(run)):
            print("not requeued by us; submitting the sweep again goes on from the checkpoint")
        raise SystemExit(code)

    def _requeue(self, run: Path) -> bool:
        record = Record(Path(self.record))
        limit = submitted_with(record).attempts_without_progress
        if is_stuck(run, limit):
            print(f"{limit} attempts in a row saved no further step: {run} is not tried again")
        return not is_cancelled(record) and may_go_on(run, limit) and slurm.requeue()

    def checkpoint(self, *arguments: object) -> DelayedSubmission:
        """What submitit starts again when a signal comes before the run has taken over."""
        return DelayedSubmission(self, *arguments)


class Drain:
    """An array element that takes run after run, until none is left or its time is over."""

    def __init__(self, record: Path) -> None:
        self.record = str(record)

    def __call__(self, first: int) -> None:
        """Begins at place ``first`` of the plan; ends the process with a code as a run does."""
        record = Record(Path(self.record))
        cluster = submitted_with(record)
        turn = Turn(record, cluster.attempts_without_progress)
        submission = packed.drain(record, first, workers=cluster.workers or 1)
        print(submission.message, flush=True)
        if submission.failed and not submission.unfinished:
            raise SystemExit(int(ExitCode.CRASH))
        if not submission.unfinished:
            raise SystemExit(int(ExitCode.DONE))
        if not (turn.another_helps(unfinished(record)) and slurm.requeue()):
            print("not requeued by us; submitting the sweep again goes on from the checkpoints")
        raise SystemExit(int(ExitCode.RUN_AGAIN))

    def checkpoint(self, *arguments: object) -> DelayedSubmission:
        """What submitit starts again when a signal comes before the runs have taken over."""
        return DelayedSubmission(self, *arguments)


def _submit_array(
    executor: submitit.SlurmExecutor, job: Job | Drain, elements: Sequence[tuple[object, ...]]
) -> str:
    """Submits one array, an element for each tuple of arguments; returns the id of its job."""
    with contextlib.redirect_stderr(io.StringIO()):  # sbatch's words come with the exception
        jobs = executor.map_array(job, *zip(*elements, strict=True))
    return str(jobs[0].job_id).split("_")[0]


def _at_once(cluster: Cluster) -> int:
    """Runs at the same time in one job."""
    if not packed.is_wanted(cluster):
        return 1
    return cluster.gpus_per_node * cluster.workers_per_gpu or cluster.workers or 1


def _executor(record: Record, cluster: Cluster) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(record.logs, max_num_timeout=MANY_TIMEOUTS)
    gpus, at_once = cluster.gpus_per_node, _at_once(cluster)
    cpus = cluster.cpus_per_task * at_once
    asked = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": gpus if gpus and cluster.gres is None else None,
        "gres": f"{cluster.gres}:{gpus}" if gpus and cluster.gres is not None else None,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024 * at_once)}MB",
    }
    executor.update_parameters(
        job_name=slurm.name(record),
        time=cluster.timeout_min,
        nodes=cluster.nodes,
        ntasks_per_node=1,
        cpus_per_task=cpus,
        srun_args=[f"--cpus-per-task={cpus}"],  # not inherited since 22.05
        array_parallelism=cluster.array_parallelism,
        setup=cluster.setup,
        signal_delay_s=slurm.notice(cluster),
        stderr_to_stdout=True,
        additional_parameters={"requeue": True},
        **{name: value for name, value in asked.items() if value is not None},
    )
    return executor
