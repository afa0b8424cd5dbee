"""The next stage of a sweep, without anybody who waits for it: a small SLURM job.

It starts when the jobs of a stage have ended, in whatever way, and submits the next stage from
what the run directories say by then; where runs of the stage are missing it says so in its log,
and submits nothing.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from gptopt.config.schema import Cluster
from gptopt.dispatch import SubmissionError, slurm
from gptopt.sweep.record import Record

TIMEOUT_MIN = 30


def submit(record: Record, cluster: Cluster, jobs: Sequence[str], arguments: Sequence[str]) -> str:
    """Queues ``gptopt ARGUMENTS`` behind ``jobs``; returns the number of its job.

    Args:
        record: The submission of the stage that ``jobs`` work on; the log lies in it.
        cluster: Its settings; those that say where a job may run hold here, too.
        jobs: Numbers of SLURM jobs.
        arguments: Of the command line.

    Raises:
        SubmissionError: SLURM refuses.
    """
    asked = {
        "job-name": slurm.next_name(record),
        "output": f"{str(record.logs).replace('%', '%%')}/%j_next.out",
        "dependency": f"afterany:{':'.join(jobs)}",
        "ntasks": 1,
        "time": TIMEOUT_MIN,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
    }
    options = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    command = shlex.join([sys.executable, "-m", "gptopt.cli", *arguments])
    script = "\n".join([*cluster.setup, f"exec {command}"])
    with slurm.environment({}):
        try:
            answer = slurm.run("sbatch", "--parsable", *options, "--wrap", script)
        except subprocess.CalledProcessError as error:
            raise SubmissionError(f"No job waits for the stage. {error.stderr.strip()}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise SubmissionError(f"No job waits for the stage. {error}") from None
    job = answer.strip().split(";")[0]
    record.note_next(job)
    return job
