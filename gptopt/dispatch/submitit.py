"""A SLURM array through submitit: an element per run, and nobody waits for it.

submitit writes the batch file and brings a Python to the node; the rest is ours. The run's
own process answers the signals (it saves at the next step border and ends with 75), then asks
SLURM to start the job again. What SLURM or submitit believe of a run is never read.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError

from gptopt import layout
from gptopt.config.schema import Cluster
from gptopt.dispatch import Submission, SubmissionError, slurm
from gptopt.files import read_json
from gptopt.state import ExitCode, read_state
from gptopt.sweep.record import JOB_MODULE, Record, Row

SIGNAL_DELAY_S = 120  # before the time limit, or a quarter of it; runs also watch the clock
MANY_TIMEOUTS = 10**6  # submitit counts them only while no run is at work: importing, ending


def submit(record: Record, cluster: Cluster) -> Submission:
    """Hands the submitted rows to SLURM, in arrays no longer than it takes, and returns."""
    rows = record.submitted()
    jobs: list[str] = []
    with slurm.environment(_environment(cluster)):
        executor = _executor(record, cluster)
        limit = slurm.max_array_size()
        for start in range(0, len(rows), limit):
            chunk = rows[start : start + limit]
            try:
                jobs.append(_submit_array(executor, record, chunk))
            except FailedJobError as error:
                before = f"{start} of {len(rows)} runs were" if start else "Nothing was"
                raise SubmissionError(f"{before} submitted. {str(error).strip()}") from None
            record.note_jobs(jobs[-1], chunk)
    plural = "s" * (len(jobs) > 1)
    message = f"{len(rows)} runs in the queue, job{plural} {', '.join(jobs)}; logs: {record.logs}"
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
        if code == ExitCode.RUN_AGAIN and not (_may_go_on(Path(run)) and slurm.requeue()):
            print("not requeued by us; submitting the sweep again goes on from the checkpoint")
        raise SystemExit(code)

    def checkpoint(self, *arguments: object) -> DelayedSubmission:
        """What submitit starts again when a signal comes before the run has taken over."""
        return DelayedSubmission(self, *arguments)


def _may_go_on(run: Path) -> bool:
    """Whether ``run`` was told to make room (not to end), and got on while it had a node.

    An attempt without a single step would be followed by another one, for ever.
    """
    state = read_state(run)
    attempt = read_json(layout.attempt_file(run, state.attempt)) or {}
    return state.state == "preempted" and state.step > attempt.get("start_step", state.step)


def _submit_array(executor: submitit.SlurmExecutor, record: Record, rows: list[Row]) -> str:
    """Submits one array; returns the id of its job."""
    with contextlib.redirect_stderr(io.StringIO()):  # sbatch's words come with the exception
        jobs = executor.map_array(
            Job(record.directory), [row.index for row in rows], [row.run for row in rows]
        )
    return str(jobs[0].job_id).split("_")[0]


def _executor(record: Record, cluster: Cluster) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(record.logs, max_num_timeout=MANY_TIMEOUTS)
    asked = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}MB",
    }
    executor.update_parameters(
        job_name=f"gptopt-{record.directory.parent.name}",
        time=cluster.timeout_min,
        nodes=cluster.nodes,
        ntasks_per_node=1,
        cpus_per_task=cluster.cpus_per_task,
        srun_args=[f"--cpus-per-task={cluster.cpus_per_task}"],  # not inherited since 22.05
        array_parallelism=cluster.array_parallelism,
        setup=cluster.setup,
        signal_delay_s=min(SIGNAL_DELAY_S, 15 * cluster.timeout_min),
        stderr_to_stdout=True,
        additional_parameters={"requeue": True},
        **{name: value for name, value in asked.items() if value is not None},
    )
    return executor


def _environment(cluster: Cluster) -> dict[str, str]:
    """What a job inherits besides the submitter's environment; never written into a file."""
    threads = str(cluster.threads or cluster.cpus_per_task)
    pinned = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return pinned | {name: str(value) for name, value in cluster.env.items()}
