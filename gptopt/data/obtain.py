"""How to bring a corpus that is not there: the end of the message that misses it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from gptopt.layout import HYDRA_CONF

TINY_SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
DOCUMENTS = {
    "slim_pajama10B": "SlimPajama (cerebras/SlimPajama-627B), about 10 billion tokens of them",
    "slim_pajama6B": "SlimPajama-6B (DKYoon/SlimPajama-6B), all of it",
    "fineweb1B": "FineWeb (HuggingFaceFW/fineweb, sample-10BT), about 1 billion tokens of them",
    "fineweb10B": "FineWeb (HuggingFaceFW/fineweb, sample-10BT), all of the sample",
    "openwebtext": "OpenWebText (Skylion007/openwebtext), all of it",
    "wikitext": "WikiText-103 (Salesforce/wikitext, wikitext-103-raw-v1), all of it",
}
"""Preset -> which documents, and under which name the Hugging Face hub has them."""
UNSET = "???"


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
            f"where SOURCE are .parquet, .jsonl or .txt files, or directories of them, of "
            f"{documents}."
        )
    if data["format"] == "stdlib":
        return "data=grammar needs no files."
    return "Put the data there, or correct the path."


def presets() -> Iterator[dict[str, Any]]:
    """The node ``data`` of every file in ``hydra_conf/data``, by name."""
    for file in sorted((HYDRA_CONF / "data").glob("*.yaml")):
        yield yaml.safe_load(file.read_text(encoding="utf-8"))


def state_of(data: Mapping[str, Any], data_root: Path) -> str:
    """``there``, ``missing``, ``yours`` (its paths are to be given) or ``built in``."""
    places = [data[key] for key in ("path", "train") if key in data]
    if not places:
        return "built in"
    if UNSET in places:
        return "yours"
    return "there" if any(glob(str(place), root_dir=data_root) for place in places) else "missing"
