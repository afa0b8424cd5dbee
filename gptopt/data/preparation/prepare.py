"""Documents to token shards: what ``gptopt data prepare`` does.

    train_000000.bin, train_000001.bin, ...    shard_tokens tokens each; the last has the rest
    val_000000.bin, ...                        the same of the documents held out
    manifest.json                              written last: it vouches for all of them
    <tokenizer>.json                           a copy of the vocabulary, where it is one file

Every document starts with the tokenizer's end-of-text token and may run on into the next shard.
Whether it is held out depends on its text alone,

    first 64 bits of blake2b(text) < val_share 2^64,                                        (1)

so equal documents are always in the same part, and a document held out of one corpus is held out
of every other one of the same share. With ``shuffle_seed`` documents stand in the order of a hash
of (seed, text), otherwise in that of the sources. ``deduplicate`` keeps the first of equal ones.

First every unit of about 4 MiB is tokenized into a file of its own, in any order and by any
number of processes; then the units are joined. Stopped at any moment, by any signal, the same
command goes on with the units that are missing and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptopt.data.corpus import DataError
from gptopt.data.manifest import MANIFEST, UNFINISHED
from gptopt.data.preparation.joining import Parts, join
from gptopt.data.preparation.options import Options
from gptopt.data.preparation.tokenizing import Tokenize
from gptopt.data.preparation.workers import run_all
from gptopt.data.preparation.workspace import Workspace
from gptopt.data.preparation.writing import LONGEST
from gptopt.data.texts import Span, find_files, units
from gptopt.data.tokenizers import Tokenizer, load_tokenizer
from gptopt.files import read_json, write_json


@dataclass(frozen=True)
class Progress:
    """How far it is: source bytes ``done`` (of them ``before`` in an earlier run) of ``total``."""

    done: int
    before: int
    total: int
    seconds: float


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    options: Options,
    workers: int,
    data_root: str | Path,
    report: Callable[[Progress], None],
) -> dict[str, Any]:
    """Tokenizes ``sources`` into shards in the directory ``out``.

    Args:
        sources: Files and directories.
        out: A new or empty directory, one where this was interrupted, or one where it is done:
            then nothing is.
        options: What is made of them.
        workers: Processes; they change the speed alone.
        data_root: Where vocabularies lie.
        report: Told after every unit.

    Returns:
        The manifest.

    Raises:
        DataError: A bad option, an unreadable source (file and place), a used directory.
    """
    out, data_root = Path(out), Path(data_root).expanduser().absolute()
    if not 0 < options.val_share < 1:
        raise DataError(
            f"val_share={options.val_share}: give a share between 0 and 1, such as 0.01."
        )
    if not 0 < options.shard_tokens <= LONGEST:
        raise DataError(
            f"shard_tokens={options.shard_tokens}: a header counts from 1 to {LONGEST}."
        )
    encoder = load_tokenizer(options.tokenizer, data_root, allow_pickle=options.allow_pickle)
    files = find_files(sources, options.texts.patterns)
    plan = _plan(files, options, encoder)
    if (finished := _finished(out, plan)) is not None:
        return finished
    with Workspace(out, plan) as work:
        portions = units(files, options.texts)
        names = [work / f"{number:06d}" for number in range(len(portions))]
        _tokenize(portions, names, Tokenize(options, data_root), workers, report)
        parts = join(names, out, options, encoder)
        manifest = plan | _counts(parts, options)
        if encoder.file is not None:
            shutil.copyfile(encoder.file, out / encoder.file.name)
        write_json(out / MANIFEST, manifest)
    return manifest


def _plan(files: list[Path], options: Options, encoder: Tokenizer) -> dict[str, Any]:
    """The part of the manifest that is known at the start; equal plans give equal bytes."""
    settings = dataclasses.asdict(options)
    del settings["tokenizer"], settings["allow_pickle"]
    texts = settings.pop("texts")
    settings |= {key: list(v) if isinstance(v, tuple) else v for key, v in texts.items()}
    return {
        "tokenizer": encoder.name,
        "tokenizer_sha256": encoder.sha256,
        "vocab_size": encoder.vocab_size,
        "end_of_text": encoder.end_of_text,
        "options": settings,
        "sources": [{"path": str(file), "bytes": file.stat().st_size} for file in files],
    }


def _finished(out: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, where exactly this has been prepared before."""
    if (out / UNFINISHED).exists():
        return None
    manifest = read_json(out / MANIFEST)
    if isinstance(manifest, dict) and all(manifest.get(key) == plan[key] for key in plan):
        return manifest
    return None


def _tokenize(
    portions: list[tuple[Span, ...]],
    names: list[Path],
    task: Tokenize,
    workers: int,
    report: Callable[[Progress], None],
) -> None:
    """Writes the units that are not there yet."""
    sizes = [sum(span.size for span in portion) for portion in portions]
    missing = [number for number, name in enumerate(names) if not name.exists()]
    total, to_do = sum(sizes), sum(sizes[number] for number in missing)
    done = before = total - to_do
    start = time.monotonic()
    items = [(number, portions[number], names[number]) for number in missing]
    for number in run_all(task, items, workers):
        done += sizes[number]
        report(Progress(done, before, total, time.monotonic() - start))


def _counts(parts: Parts, options: Options) -> dict[str, Any]:
    for part, documents in parts.documents.items():
        if not documents:
            raise DataError(
                f"No document for {part}: {sum(parts.documents.values())} documents, "
                f"val_share={options.val_share}. Give more documents, or another share. (One long "
                "text needs no shards: data=text data.path=... holds out its tail.)"
            )
    return {
        "documents": parts.documents,
        "duplicates": parts.duplicates,
        "tokens": parts.tokens,
        "shards": parts.shards,
    }
