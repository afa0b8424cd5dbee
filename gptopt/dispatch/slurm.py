"""Questions to SLURM. Every one has a time limit: a client without its cluster hangs a minute."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gptopt.config.schema import Cluster
from gptopt.state import job_name
from gptopt.sweep.record import Record

TIMEOUT_S = 20
ANSWER_S = 30  # so long an answer on the queue is good
DISBATCH = "disbatch"
DEFAULT_MAX_ARRAY_SIZE = 1001  # slurm.conf
NO_CLUSTER = "Could not establish a configuration source"

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A place in the queue."""

    job: str
    state: str
    reason: str


Queue = dict[tuple[str, int | None], Place]  # by job, and array element or None
_answer: tuple[float, Queue] | None = None


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


def pending(records: Iterable[Record]) -> set[Path]:
    """Directories of the runs that a queued job of one of these submissions stands for, now."""
    return set(_places(records, _queued))


def queue(records: Iterable[Record]) -> dict[Path, Place]:
    """Where the runs of these submissions stand in the queue, by run directory.

    For a live view: SLURM is asked at most once in ``ANSWER_S`` seconds.
    """

    def recent() -> Queue:
        global _answer
        if _answer is None or time.monotonic() - _answer[0] > ANSWER_S:
            _answer = time.monotonic(), _queued()
        return _answer[1]

    return _places(records, recent)


def cancel(record: Record) -> int:
    """Cancels the jobs of ``record`` that are in the queue, and counts them.

    The number of a job may belong to somebody else's by now, after a change of cluster or the
    loss of its numbers: only jobs with our name are touched.
    """
    known = {job for job, _ in record.jobs().values()}
    if not known or not is_here():
        return 0
    answer = run("squeue", "--me", "--array", "--noheader", "-o", "%F %T %j")
    entries = [line.split(maxsplit=2) for line in answer.splitlines()]
    names = (name(record), next_name(record))
    ours = [entry for entry in entries if entry[0] in known and entry[2] in names]
    running = ["RUNNING"] * (record.directory / DISBATCH).is_dir()  # it saves and ends by itself
    if jobs := sorted({job for job, state, _ in ours if state not in running}):
        run("scancel", *jobs)
    return len(ours)


def name(record: Record) -> str:
    """What the jobs of ``record`` are called."""
    return f"gptopt-{record.directory.parent.name}"


def next_name(record: Record) -> str:
    """What the job is called that goes on with the next stage."""
    return f"{name(record)}-next"


def notice(cluster: Cluster) -> int:
    """Seconds before the time limit at which a job is told; a quarter of a short one."""
    return min(cluster.signal_delay_s, 15 * cluster.timeout_min)


def deadline() -> dict[str, str]:
    """When the job around us ends, as a variable for the runs in it; empty if it is known."""
    if not job_name() or "GPTOPT_DEADLINE" in os.environ:
        return {}
    end = ask("squeue", "--noheader", "--jobs", job_name(), "-o", "%e").strip()
    return {"GPTOPT_DEADLINE": end} if re.match(r"\d{4}-", end) else {}  # else unlimited


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


def _queued() -> Queue:
    states = "PENDING,CONFIGURING,RUNNING,SUSPENDED,REQUEUED"
    form = ["--states", states, "-o", "%F %K %T %r"]
    found: Queue = {}
    for line in ask("squeue", "--me", "--array", "--noheader", *form).splitlines():
        job, element, state, reason = line.split(maxsplit=3)
        number = int(element) if element.isdigit() else None
        reason = "" if reason == "None" else reason
        found[job, number] = Place(job if number is None else f"{job}_{number}", state, reason)
    return found


def _places(records: Iterable[Record], queued: Callable[[], Queue]) -> dict[Path, Place]:
    jobs = [(run, *key) for record in records for run, key in record.jobs().items()]
    found = queued() if jobs and is_here() else {}
    whole: dict[str, Place] = {}  # any element stands for the job; one at work if there is one
    for (job, _), place in found.items():
        if job not in whole or place.state == "RUNNING":
            whole[job] = place
    places = {}
    for run, job, element in jobs:
        alone = found.get((job, element)) or found.get((job, None))
        shared = whole.get(job) if element is None else None
        if stands := alone or shared:
            places[run] = stands
    return places
