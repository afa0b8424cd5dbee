"""Tokens per CPU second of our loader and of plain random windows of a memory map.

    OMP_NUM_THREADS=1 python benchmarks/loader.py [--rounds 9] [--batches 300]

Plain is what small GPT trainers do: a window at a random place of ``np.memmap`` for every row,
converted and stacked one by one. Ours reads the windows of its exact order. Both give inputs and
targets, (32, 1024) int64 each, from the same two shards in the page cache; rounds are
interleaved, medians of CPU seconds. Then the start on a corpus of 10^10 tokens (100 sparse
files), in a process of its own, and what a batch of gpt-tiny costs beside its step.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gptopt.data import open_corpus
from gptopt.data.batch import Reading
from gptopt.data.corpus import Mixture, Part, Tokens
from gptopt.data.loader import Loader
from gptopt.data.shards import Shards, open_shard

BATCH, CONTEXT, VOCAB = 32, 1024, 50257
TOKENS = 40_000_000
STEP_MS = 36.0
"""Of gpt-tiny on one core, from benchmarks/train_step.py."""


def write(path: Path, tokens: int, content: bytes | None) -> Path:
    """A shard of ``tokens`` uint16; without content a hole of zeros that takes no disk."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, tokens
    path.write_bytes(header.tobytes() + (content or b""))
    os.truncate(path, 1024 + 2 * tokens)
    return path


def loader(tokens: Tokens, *, batch: int, context: int, documents: str, prefetch: int) -> Loader:
    mark = 0 if documents != "plain" else None
    return Loader(
        tokens,
        context_length=context,
        batch_size=batch,
        seed=0,
        shuffle=True,
        rank=0,
        world_size=1,
        reading=Reading(documents, mark, (), None, VOCAB),  # type: ignore[arg-type]
        prefetch=prefetch,
        device=torch.device("cpu"),
    )


def plain(path: Path) -> Callable[[], object]:
    """The usual way: one random place a row, every row converted by itself."""

    def batch() -> object:
        tokens = np.memmap(path, dtype="<u2", mode="r", offset=1024)  # anew: or memory grows
        places = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        x = torch.stack(
            [torch.from_numpy(tokens[p : p + CONTEXT].astype(np.int64)) for p in places]
        )
        y = torch.stack(
            [torch.from_numpy(tokens[p + 1 : p + 1 + CONTEXT].astype(np.int64)) for p in places]
        )
        return x, y

    return batch


def cpu_seconds(batch: Callable[[], object], times: int) -> float:
    before = time.process_time()
    for _ in range(times):
        batch()
    return (time.process_time() - before) / times


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def start(directory: str) -> None:
    """Opens a large corpus up to its first batch, and prints seconds and megabytes."""
    before, memory = time.process_time(), resident()
    data = {"name": "large", "format": "bin", "train": "train_*.bin", "val": "val_*.bin"}
    more = {"val_split": None, "dtype": None, "tokenizer": "gpt2", "vocab_size": VOCAB}
    corpus = open_corpus(data | more, directory)
    loader(corpus.train, batch=BATCH, context=CONTEXT, documents="plain", prefetch=0).next_batch()
    grown = (resident() - memory) / 2**20
    seconds = time.process_time() - before
    print(f"{len(corpus.train):,} tokens: {seconds:.2f} CPU s to the first batch, +{grown:.1f} MB")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--start", metavar="DIRECTORY", help="only this measurement")
    given = parser.parse_args()
    if given.start:
        start(given.start)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        random = np.random.default_rng(0)
        paths = [
            write(root / f"{n}.bin", TOKENS, random.integers(0, VOCAB, TOKENS, "<u2").tobytes())
            for n in range(2)
        ]
        both = Shards([open_shard(path, None) for path in paths])
        apart = [Part(path.name, Shards([open_shard(path, None)]), w)
                 for path, w in zip(paths, (0.7, 0.3), strict=True)]  # fmt: skip
        common = {"batch": BATCH, "context": CONTEXT, "prefetch": 0}
        ways = {
            "plain random windows": plain(paths[0]),
            "ours": loader(both, documents="plain", **common).next_batch,
            "ours, mixture 0.7 : 0.3": loader(
                Mixture(tuple(apart), "weighted"), documents="plain", **common
            ).next_batch,
            "ours, documents=mask": loader(both, documents="mask", **common).next_batch,
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(given.rounds + 1):  # the first round warms the caches
            for way, batch in ways.items():
                found = cpu_seconds(batch, given.batches)
                if number:
                    seconds[way].append(found)
        ratios = seconds["plain random windows"]
        for way, found in seconds.items():
            speed = BATCH * CONTEXT / statistics.median(found) / 1e6
            ratio = statistics.median(a / b for a, b in zip(ratios, found, strict=True))
            print(f"{way}: {speed:.0f} million tokens per CPU second, {ratio:.1f} times plain")
        for prefetch in (0, 2):
            small = loader(both, batch=8, context=128, documents="plain", prefetch=prefetch)
            with small:
                milliseconds = 1e3 * cpu_seconds(small.next_batch, 5000)
            share = milliseconds / STEP_MS
            print(f"gpt-tiny, prefetch {prefetch}: {milliseconds:.3f} ms a batch, {share:.2%}")
        for number in range(100):
            write(root / f"train_{number:06}.bin", 10**8, None)
        write(root / "val_000000.bin", 10**6, None)
        subprocess.run([sys.executable, __file__, "--start", name], check=True)


if __name__ == "__main__":
    main()
