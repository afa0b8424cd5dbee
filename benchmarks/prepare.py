"""Times ``gptopt data prepare`` against its tokenizer library alone, and kills it on the way.

    python benchmarks/prepare.py [--megabytes 100] [--kills 5] [--directory /tmp/prepare]

The corpus is the Python sources of the installed packages, a document a file, in one .jsonl; the
tokenizer 50,000 merges learnt from a fifth of it, in files like GPT-2's. "Alone" reads the same
lines and calls the batch encoder of tiktoken on 1,000 documents at a time, in as many threads as
prepare has processes. CPU seconds are those of all processes; memory is that of the largest one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from gptopt.data import gpt2

GPTOPT = [sys.executable, "-m", "gptopt.cli", "data"]
ALONE = """
import itertools, json, sys, tiktoken
from pathlib import Path
from gptopt.data import gpt2
vocabulary = json.loads(Path(sys.argv[2]).read_text())
ranks = {spelled: n for n, spelled in gpt2.spellings(vocabulary).items() if n != gpt2.END_OF_TEXT}
encoding = tiktoken.Encoding(
    "gpt2", pat_str=gpt2.PATTERN, mergeable_ranks=ranks, special_tokens={}
)
lines = open(sys.argv[1])
while batch := [json.loads(line)["text"] for line in itertools.islice(lines, 1000)]:
    encoding.encode_ordinary_batch(batch, num_threads=int(sys.argv[3]))
"""


def corpus(path: Path, megabytes: float) -> None:
    """Writes sources of installed packages, then of the standard library, until it is enough."""
    left = int(megabytes * 1e6)
    with open(path, "w", encoding="utf-8") as file:
        for root in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")):
            for source in sorted(Path(root).rglob("*.py")):
                text = source.read_text(encoding="utf-8", errors="replace")[:left]
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n" if text else "")
                left -= len(text.encode())
                if left <= 0:
                    return


def like_gpt2(bpe: Path, directory: Path) -> None:
    """Writes the merges of a trained bpe as vocab.json and merges.txt, numbered as GPT-2 does."""
    merges = json.loads(bpe.read_text())["model"]["merges"]
    tokens = [*gpt2.byte_characters().values(), *("".join(merge) for merge in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|endoftext|>"])}
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n")


def timed(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, MB of the largest process) of a command."""
    reader, writer = os.pipe()
    if not (child := os.fork()):  # a process of its own, so that its children's use is its own
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=2)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        os.write(writer, json.dumps(figures).encode())
        os._exit(0)
    os.waitpid(child, 0)
    wall, cpu, memory = json.loads(os.read(reader, 1000))
    return wall, cpu, memory


def contents(directory: Path) -> dict[str, str]:
    """sha256 of every file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/prepare"))
    options = parser.parse_args()
    place = options.directory
    place.mkdir(parents=True)
    text, small, bpe = place / "text.jsonl", place / "small.jsonl", place / "bpe.json"
    corpus(text, options.megabytes)
    corpus(small, options.megabytes / 5)
    train = [*GPTOPT, "train-tokenizer", small, "--out", bpe, "--vocab-size", str(gpt2.VOCAB)]
    subprocess.run(train, check=True)
    like_gpt2(bpe, place / "tokenizers" / "gpt2")
    vocabulary = place / "tokenizers" / "gpt2" / "vocab.json"

    def prepare(out: str, workers: int) -> list[str]:
        command = [*GPTOPT, "prepare", str(text), "--out", str(place / out)]
        command += ["--data-root", str(place), "--val-share", "0.01", "--shuffle-seed", "0"]
        return [*command, "--shard-tokens", "10000000", "--workers", str(workers)]

    for cores in (1, 2):
        alone = [sys.executable, "-c", ALONE, str(text), str(vocabulary), str(cores)]
        rows = {
            "alone": timed(alone),
            "prepare": timed(prepare(f"whole-{cores}", cores)),
        }
        for name, (wall, cpu, memory) in rows.items():
            print(f"{cores} cores, {name}: {wall:.1f} s, {cpu:.1f} CPU s, {memory:.0f} MB")

    wall = rows["prepare"][0]
    draw = random.Random(0)
    for _ in range(options.kills):
        process = subprocess.Popen(prepare("killed", draw.choice([1, 2])), start_new_session=True)
        time.sleep(draw.uniform(0.02, 0.3) * wall)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print("killed with", len(list((place / "killed" / "units").glob("??????"))), "units done")
    subprocess.run(prepare("killed", 2), check=True)
    same = contents(place / "killed") == contents(place / "whole-1") == contents(place / "whole-2")
    print("byte-identical:", same)


if __name__ == "__main__":
    main()
