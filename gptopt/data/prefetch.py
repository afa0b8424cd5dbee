"""Batches made ahead in a thread: bounded, in order, and never in the way of an error."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Takes up to ``depth`` items from ``produce()`` before they are asked for.

    Args:
        produce: Gives an endless iterator; it is made and used in the thread alone.
        depth: Items that wait at most, at least 1.
    """

    def __init__(self, produce: Callable[[], Iterator[Item]], depth: int) -> None:
        self._items: queue.Queue[Item | BaseException] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(produce,), name="gptopt-prefetch", daemon=True
        )
        self._thread.start()

    def get(self) -> Item:
        """The next item.

        Raises:
            BaseException: What ``produce`` raised instead of it.
        """
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Ends the thread and waits for it; what it has made is dropped."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._items.get_nowait()  # it may wait for a free place
            except queue.Empty:
                self._thread.join(0.01)

    def _work(self, produce: Callable[[], Iterator[Item]]) -> None:
        try:
            for item in produce():
                self._items.put(item)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (it is raised again where the item is missed)
            self._items.put(error)
