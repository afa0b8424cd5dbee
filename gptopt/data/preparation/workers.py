"""Work shared by processes that end with the one that started them, however it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any


def run_all(task: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """Results of ``task`` on ``items``, as they come; 1 worker is this process itself.

    Workers watch this process and end at once when it does, even by kill -9.

    Args:
        task: Picklable, and importable in a new interpreter.
        items: Picklable.
        workers: Processes.

    Raises:
        RuntimeError: A worker was killed.
        Exception: What ``task`` raised, the first of it.
    """
    if workers == 1 or len(items) < 2:
        yield from map(task, items)
        return
    context = get_context("spawn")  # forked copies of threads of the tokenizers would hang
    pending = iter(items)
    processes = []
    busy: list[Connection] = []
    try:
        for _ in range(min(workers, len(items))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            busy.append(ours)
            ours.send(next(pending))
        while busy:
            for connection in wait(busy):
                assert isinstance(connection, Connection)
                try:
                    result = connection.recv()
                except EOFError:
                    raise RuntimeError(
                        "A worker process was killed; the system's memory may be short. The same "
                        "command goes on from here, with --workers 1 if need be."
                    ) from None
                if isinstance(result, Exception):
                    raise result
                yield result
                try:
                    connection.send(next(pending))
                except StopIteration:
                    busy.remove(connection)
                    connection.close()
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(connection: Connection, task: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the starting process ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            result = task(item)
        except Exception as error:
            result = error
        connection.send(result)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
