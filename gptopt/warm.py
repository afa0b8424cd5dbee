"""A process that has imported what runs need, and becomes a run by forking.

Requests come as lines of JSON on standard input, answers go to standard output. To start a run:

    {"record": "...", "index": 3, "log": "...", "environment": {...}} -> {"started": 4711}
                                                                later -> {"ended": 4711, "code": 0}

The first answer, once everything is imported, is {"ready": <pid>}. Every run is a process of its
own: it shares nothing with the runs before it but code that is in memory already. For this to
be true, this process itself computes nothing: it never touches a tensor or a GPU and starts no
thread, so a fork is the same as a fresh process that has done its imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from gptopt import job
from gptopt.state import ExitCode

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Serves until the requests end; in a fork, becomes the run and returns its exit code."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # only answers go where answers are read
    for number in SIGNALS:  # they are for the runs; SLURM tells every process of a step
        signal.signal(number, signal.SIG_IGN)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    import gptopt.training  # noqa: F401  the expensive one

    gc.freeze()  # pages that no collection writes to stay shared
    _tell(answers, ready=os.getpid())
    unread = b""
    while True:
        readable, _, _ = select.select([requests, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            _tell_who_ended(answers)
        if requests in readable:
            data = os.read(requests, 2**16)
            if not data:  # whoever asked is gone, or needs no more
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a fork misses none
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for descriptor in (requests, answers, wake, woken):
                        os.close(descriptor)
                    return _become(**json.loads(line))
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                with contextlib.suppress(OSError):  # it may have done so itself
                    os.setpgid(pid, pid)
                _tell(answers, started=pid)
    with contextlib.suppress(ChildProcessError):  # none left
        while True:
            os.wait()
    return int(ExitCode.DONE)


def _become(record: str, index: int, log: str, environment: dict[str, str]) -> int:
    """The run, as a process started from nothing would be."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # else nobody could tell its end
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = [job.__file__, record, str(index)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (*SIGNALS[1:], signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return job.run(Path(record), index)


def _tell_who_ended(answers: int) -> None:
    with contextlib.suppress(ChildProcessError):  # none left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(answers, ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def _tell(answers: int, **facts: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens; the runs go on
        os.write(answers, f"{json.dumps(facts)}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
