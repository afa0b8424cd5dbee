"""Questions to SLURM. Every one has a time limit: a client without its cluster hangs a minute."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gptopt.state import job_name
from gptopt.sweep.record import Record

TIMEOUT_S = 20
DEFAULT_MAX_ARRAY_SIZE = 1001  # slurm.conf
NO_CLUSTER = "Could not establish a configuration source"

log = logging.getLogger(__name__)


def is_here() -> bool:
    """Whether jobs can be submitted from this machine: the clients are there, and know a cluster.

    A client that does not answer in time, or whose controller is down, still belongs to one.
    """
    conf = os.environ.get("SLURM_CONF")
    if shutil.which("sbatch") is None or (conf is not None and not Path(conf).is_file()):
        return False
    if conf is not None:
        return True
    try:
        answer = run("scontrol", "ping")
    except subprocess.CalledProcessError as error:
        return NO_CLUSTER not in str(error.stderr)
    except (OSError, subprocess.SubprocessError):
        return True
    return NO_CLUSTER not in answer


def max_array_size() -> int:
    """Elements an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else DEFAULT_MAX_ARRAY_SIZE


def queued() -> set[tuple[str, int | None]]:
    """(job, array element or None) of what this user has in the queue, waiting or running."""
    states = "PENDING,CONFIGURING,RUNNING,SUSPENDED,REQUEUED"
    answer = ask("squeue", "--me", "--array", "--noheader", "--states", states, "-o", "%F %K")
    found = (line.split() for line in answer.splitlines())
    return {(job, int(element) if element.isdigit() else None) for job, element in found}


def pending(records: Iterable[Record]) -> set[Path]:
    """Directories of the runs that a queued job of one of these submissions stands for."""
    jobs = {key: run for record in records for key, run in record.jobs().items()}
    queue = queued() if jobs and is_here() else set()
    return {run for (job, row), run in jobs.items() if {(job, row), (job, None)} & queue}


def requeue() -> bool:
    """Asks SLURM to start this job once more; False where it must not or cannot.

    A job that was cancelled has left the state RUNNING when its processes are told to end, and
    one that is preempted is requeued by SLURM itself: neither is asked for.
    """
    job = job_name()
    if ask("squeue", "--noheader", "--jobs", job, "-o", "%T").strip() != "RUNNING":
        return False
    try:
        run("scontrol", "requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("SLURM does not requeue job %s: %s", job, error)
        return False
    return True


@contextmanager
def environment(extra: Mapping[str, str]) -> Iterator[None]:
    """The environment a job should inherit: without the marks of a job around us.

    Inside an allocation, SLURM_* and SBATCH_* would become settings of the new job.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF":
            del os.environ[name]
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ask(*command: str) -> str:
    """What a SLURM command prints; nothing where it fails (a hint is all that we ask for)."""
    try:
        return run(*command)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%s", error)
        return ""


def run(*command: str) -> str:
    """What a SLURM command prints."""
    answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return answer.stdout
