"""Documents -> token shards: what ``gptopt data prepare`` does.

    train_000000.bin, train_000001.bin, ...    header 20240520, shard_tokens tokens each
    val_000000.bin, ...                        (the last of each part has the rest)
    manifest.json                              written last

A ``.jsonl`` file is a document a line, any other file is one document; empty ones are passed
over. A document starts with the tokenizer's end-of-text token and may run on into the next
shard. Document i (from 0) is held out where floor((i + 1) share) > floor(i share): an exact
share, spread evenly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptopt.data.corpus import DataError, MissingDataError
from gptopt.data.manifest import MANIFEST, UNFINISHED
from gptopt.data.shards import write_shard
from gptopt.data.tokenizers import load_tokenizer
from gptopt.files import write, write_json


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: str,
    val_share: float,
    shard_tokens: int,
    text_key: str,
    data_root: str | Path,
) -> dict[str, Any]:
    """Tokenizes ``sources`` into shards in the directory ``out``.

    Args:
        sources: Files, or directories whose .txt and .jsonl files are read in sorted order.
        out: A new or empty directory, or one where this was interrupted: that starts again.
        tokenizer: bytes or gpt2.
        val_share: Share of the documents that is held out, between 0 and 1.
        shard_tokens: Tokens per shard, 1 to 2^31 - 1; a shard of each part is kept in memory.
        text_key: The field of a .jsonl line that holds the text.
        data_root: Where gpt2's files are looked for (``tokenizers/gpt2``).

    Returns:
        The manifest.

    Raises:
        DataError: A bad option, an unreadable source (file and line), a used directory.
    """
    out = Path(out)
    if not 0 < val_share < 1:
        raise DataError(f"val_share={val_share}: give a share between 0 and 1, such as 0.01.")
    if not 0 < shard_tokens < 2**31:
        raise DataError(f"shard_tokens={shard_tokens}: a header counts from 1 to {2**31 - 1}.")
    encoder = load_tokenizer(tokenizer, Path(data_root))
    files = _files(sources)
    _claim(out)
    writers = {part: _Writer(out, part, shard_tokens) for part in ("train", "val")}
    for number, text in enumerate(_documents(files, text_key)):
        held_out = int((number + 1) * val_share) > int(number * val_share)
        writer = writers["val" if held_out else "train"]
        writer.document(encoder.end_of_text, encoder.encode(text))
    for part, writer in writers.items():
        writer.finish()
        if not writer.documents:
            raise DataError(
                f"No document for {part}: {sum(w.documents for w in writers.values())} documents, "
                f"val_share={val_share}. Give more documents, or a larger share. (One long text "
                "needs no shards: data=text data.path=... holds out its tail.)"
            )
    manifest = {
        "tokenizer": tokenizer,
        "vocab_size": encoder.vocab_size,
        "end_of_text": encoder.end_of_text,
        "val_share": val_share,
        "shard_tokens": shard_tokens,
        "text_key": text_key,
        "sources": [{"path": str(file), "bytes": file.stat().st_size} for file in files],
        "documents": {part: writer.documents for part, writer in writers.items()},
        "tokens": {part: writer.tokens for part, writer in writers.items()},
        "shards": writers["train"].shards | writers["val"].shards,
    }
    write_json(out / MANIFEST, manifest)
    (out / UNFINISHED).unlink()
    return manifest


class _Writer:
    """Fills one shard of a part in memory and writes it when it is full."""

    def __init__(self, out: Path, part: str, shard_tokens: int) -> None:
        self.out, self.part = out, part
        self.buffer = np.empty(shard_tokens, dtype=np.uint16)
        self.filled = 0
        self.documents = 0
        self.tokens = 0
        self.shards: dict[str, dict[str, int | str]] = {}

    def document(self, end_of_text: int, ids: np.ndarray) -> None:
        self.documents += 1
        self._append(np.array([end_of_text], dtype=np.uint16))
        self._append(ids)

    def _append(self, ids: np.ndarray) -> None:
        self.tokens += len(ids)
        while len(ids):
            room = len(self.buffer) - self.filled
            now, ids = ids[:room], ids[room:]
            self.buffer[self.filled : self.filled + len(now)] = now
            self.filled += len(now)
            if self.filled == len(self.buffer):
                self.finish()

    def finish(self) -> None:
        """Writes what is in memory."""
        if not self.filled:
            return
        tokens = self.buffer[: self.filled]
        name = f"{self.part}_{len(self.shards):06d}.bin"
        sha256 = write_shard(self.out / name, tokens)
        self.shards[name] = {
            "tokens": self.filled,
            "max_id": int(tokens.max()),
            "sha256": sha256,
        }
        self.filled = 0


def _claim(out: Path) -> None:
    """Makes ``out`` ours: marks it as unfinished and removes what an interrupted run left."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / UNFINISHED).exists():
        for part in ("train", "val"):
            for leftover in out.glob(f"{part}_??????.bin*"):
                leftover.unlink()
    elif any(out.iterdir()):
        raise DataError(f"--out {out}: not empty. Give a new directory, or remove this one.")
    write(out / UNFINISHED, "gptopt data prepare is at work here, or was interrupted.\n")


def _files(sources: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = [path for path in source.rglob("*") if path.suffix in (".txt", ".jsonl")]
            if not found:
                raise MissingDataError(f"{source}: no .txt or .jsonl file in this directory.")
            files += sorted(found)
        elif source.is_file():
            files.append(source)
        else:
            raise MissingDataError(f"{source}: no such file or directory.")
    return files


def _documents(files: Sequence[Path], text_key: str) -> Iterator[str]:
    """Texts of all documents that are not empty."""
    for path in files:
        texts = _lines(path, text_key) if path.suffix == ".jsonl" else _whole(path)
        yield from filter(None, texts)


def _whole(path: Path) -> Iterator[str]:
    try:
        yield path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: offset {error.start}: not UTF-8. Convert the file, or leave it out."
        ) from error


def _lines(path: Path, text_key: str) -> Iterator[str]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}.") from error
            if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
                has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                raise DataError(
                    f"{path}, line {number}: no text under {text_key!r}; it has: {has}. "
                    "Name the field with --text-key."
                )
            # JSON may hold half a surrogate pair, which is no character: it becomes "?".
            yield row[text_key].encode("utf-8", "replace").decode("utf-8")
