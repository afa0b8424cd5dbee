"""Data-parallel training: who this process is, and sums over all processes.

Gradients are averaged by our own all-reduce over flat buckets of fixed layout. DDP's
reducer re-orders its buckets after the first backward pass, so with three or more processes
a resumed run would add in another order and drift from the one that never stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_ELEMENTS = 8 * 2**20


class World:
    """The processes that train one run together; a single process needs no set-up."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.rank, self.size, self.local_rank = ranks()
        if settings["strategy"] == "single" and self.size > 1:
            raise ValueError(
                f"distributed.strategy=single, but {self.size} processes were started;"
                " use auto or ddp"
            )
        self.timeout = timedelta(minutes=settings["timeout_minutes"])

    def __enter__(self) -> World:
        if self.size > 1:
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=self.timeout)
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer."""
        if self.size == 1:
            return flag
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return bool(self.sum(torch.tensor(float(flag), device=device)).item())

    def tell(self, value: Any) -> Any:
        """The value that the main process has, in all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank, in all."""
        if self.size == 1:
            return [value]
        box = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces every gradient by its mean over all processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            flat /= self.size
            offset = 0
            for gradient in bucket:
                count = gradient.numel()
                gradient.copy_(flat[offset : offset + count].view_as(gradient))
                offset += count


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for gradient in gradients:
        if bucket and elements + gradient.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(gradient)
        elements += gradient.numel()
    if bucket:
        yield bucket


def ranks() -> tuple[int, int, int]:
    """(rank, world size, local rank) as torchrun sets them; (0, 1, 0) for a single process.

    SLURM's own variables are not read: an array element or a disBatch task sees those of the
    allocation around it.
    """
    names = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    rank, size, local = (int(os.environ.get(name, default)) for name, default in names)
    return rank, size, local
