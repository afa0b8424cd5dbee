"""How to bring a corpus that is not there: the end of the message that misses it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TINY_SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
DOCUMENTS = {
    "slim_pajama10B": "SlimPajama, about 10 billion tokens of them",
    "fineweb1B": "FineWeb, about 1 billion tokens of them",
}


def how_to_obtain(data: Mapping[str, Any], data_root: Path) -> str:
    """The command that brings or prepares what the config node ``data`` asks for."""
    if data["name"] == "shakespeare":
        target = shlex.quote(str(data_root / data["path"]))
        return f"To bring it: curl -L --create-dirs -o {target} {TINY_SHAKESPEARE}"
    if data["format"] == "bin":
        out = shlex.quote(str((data_root / data["train"]).parent))
        documents = DOCUMENTS.get(data["name"], "your documents")
        return (
            f"To prepare it: gptopt data prepare SOURCE... --out {out} "
            f"--tokenizer {data['tokenizer']} --val-share 0.01 --shard-tokens 100000000\n"
            f"where SOURCE are .jsonl or .txt files, or directories of them, of {documents}."
        )
    if data["format"] == "stdlib":
        return "data=grammar needs no files."
    return "Put the text there, or correct data.path."
