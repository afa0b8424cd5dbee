"""Documents: which there are in a list of files, and how their texts are read piece by piece.

    .jsonl               a document a line: its fields (see ``TextOptions``), joined by line breaks
    .parquet, .arrow     the same, a document a row (package pyarrow)
    any other            UTF-8 text: one document, or one between each two separators

A field may be a text, or a conversation: a list of {"role", "content"}, which becomes a line
"role: content" each. Empty documents are passed over.

Files are cut into spans of about 4 MiB, so that memory stays flat and several processes can
share the work; where they are cut depends on the files alone. A long text is cut after a line
break between two printable ASCII characters, where the word patterns of GPT-2 and its successors
part tokens anyway: the pieces have the tokens of the whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from gptopt.data.corpus import DataError, MissingDataError
from gptopt.data.tables import row_groups, rows_of_table

SPAN_BYTES = 4 << 20
PIECE = 1 << 20
BLOCK = 1 << 16
LINE_BREAK = re.compile(rb"(?<=[!-~]\n)(?=[!-~])")
PIECE_BREAK = re.compile(r"(?<=[!-~]\n)(?=[!-~])")
TABLES = (".parquet", ".arrow")


@dataclass(frozen=True)
class TextOptions:
    """What documents are.

    Attributes:
        fields: Keys of a .jsonl line (columns of a table) that make up its text, in this order.
        patterns: Which files of a directory are read, such as ``*.txt``.
        separator: Stands between documents of a text file; None: the file is one document.
    """

    fields: tuple[str, ...]
    patterns: tuple[str, ...]
    separator: str | None


class Document(NamedTuple):
    """A text, or a piece of one that is too long.

    ``digest`` (16 bytes, blake2b) is that of the whole document, ``starts`` says whether this is
    its first piece.
    """

    text: str
    digest: bytes
    starts: bool


class Span(NamedTuple):
    """Documents that begin at bytes ``start`` ... ``stop - 1`` of a file, or that piece of one.

    For a .parquet file these are row groups. ``digest`` is set where a document goes beyond.
    """

    path: Path
    start: int
    stop: int
    size: int
    digest: bytes | None


def find_files(sources: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """The files of ``sources``: directories give those of ``patterns``, sorted by path.

    Raises:
        MissingDataError: Nothing there.
    """
    files: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = {p for pattern in patterns for p in source.rglob(pattern) if p.is_file()}
            if not found:
                raise MissingDataError(
                    f"{source}: no file {' or '.join(patterns)} in this directory. Name others "
                    "with --pattern."
                )
            files += sorted(found)
        elif source.is_file():
            files.append(source)
        else:
            raise MissingDataError(f"{source}: no such file or directory.")
    return files


def units(files: Sequence[Path], options: TextOptions) -> list[tuple[Span, ...]]:
    """Portions of work of about 4 MiB each, in order; small files share one."""
    portions: list[tuple[Span, ...]] = []
    small: list[Span] = []
    for path in files:
        spans = _spans(path, options)
        if len(spans) > 1 or sum(span.size for span in [*small, *spans]) > SPAN_BYTES:
            portions += [tuple(small)] if small else []
            small = []
        if len(spans) > 1:
            portions += [(span,) for span in spans]
        else:
            small += spans
    return portions + ([tuple(small)] if small else [])


def documents(files: Sequence[Path], options: TextOptions) -> Iterator[Document]:
    """All documents of ``files`` in order.

    Raises:
        DataError: Names the file, the place and what is wrong there.
    """
    for portion in units(files, options):
        for span in portion:
            yield from read(span, options)


def _spans(path: Path, options: TextOptions) -> list[Span]:
    size = path.stat().st_size
    if path.suffix in TABLES:
        groups = row_groups(path)
        return [Span(path, i, i + 1, size // groups, None) for i in range(groups)]
    if size <= SPAN_BYTES:
        return [Span(path, 0, size, size, None)]
    count = -(-size // SPAN_BYTES)
    bounds = [size * i // count for i in range(count + 1)]
    one_document = path.suffix != ".jsonl" and options.separator is None
    digest = _digest_of(path) if one_document else None
    pairs = zip(bounds, bounds[1:], strict=False)
    return [Span(path, start, stop, stop - start, digest) for start, stop in pairs]


def _digest_of(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def read(span: Span, options: TextOptions) -> Iterator[Document]:
    """The documents of a span."""
    if span.path.suffix in TABLES:
        for number, row in rows_of_table(span.path, span.start):
            place = f"{span.path}, row {number} of group {span.start}"
            yield from _document(text_of(row, options.fields, place), None, True)
        return
    if span.path.suffix == ".jsonl":
        for offset, line in _records(span, b"\n"):
            place = f"{span.path}, offset {offset}"
            if line.strip():
                yield from _document(
                    text_of(_parsed(line, place), options.fields, place), None, True
                )
    elif options.separator is not None:
        for offset, content in _records(span, options.separator.encode()):
            yield from _document(_decoded(content, span.path, offset), None, True)
    else:
        start, content = _between(span, LINE_BREAK, 2)
        if content:
            yield from _document(_decoded(content, span.path, start), span.digest, start == 0)


def _document(text: str, digest: bytes | None, starts: bool) -> Iterator[Document]:
    """``text`` in pieces of about a million characters."""
    if not text:
        return
    if digest is None:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    begin = 0
    while begin < len(text):
        found = PIECE_BREAK.search(text, begin + PIECE)
        end = found.start() if found else len(text)
        yield Document(text[begin:end], digest, starts and begin == 0)
        begin = end


def text_of(row: Any, fields: Sequence[str], place: str) -> str:
    """The text of a .jsonl line or a table's row.

    Raises:
        DataError: A field is missing, or neither a text nor a conversation.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: a {type(row).__name__}; a document is an object {{...}}.")
    parts: list[str] = []
    for field in fields:
        value = row.get(field)
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, Sequence) and all(_is_message(item) for item in value):
            parts += [f"{message['role']}: {message['content']}" for message in value]
        else:
            has = ", ".join(map(str, row))
            raise DataError(
                f"{place}: no text under {field!r}; it has: {has}. Name the field with --field."
            )
    # JSON may hold half a surrogate pair, which is no character: it becomes "?".
    return "\n".join(parts).encode("utf-8", "replace").decode("utf-8")


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and all(
        isinstance(item.get(key), str) for key in ("role", "content")
    )


def _parsed(line: bytes, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}.") from error


def _decoded(content: bytes, path: Path, offset: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: offset {offset + error.start}: not UTF-8. Convert the file, or leave it out."
        ) from error


def _records(span: Span, separator: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, content) of what stands between separators and begins in the span."""
    start, content = _between(
        span, re.compile(b"(?<=" + re.escape(separator) + b")"), len(separator)
    )
    for record in content.split(separator):
        yield start, record
        start += len(record) + len(separator)


def _between(span: Span, border: re.Pattern[bytes], width: int) -> tuple[int, bytes]:
    """Where the first border in or after the span is, and the bytes up to the first after it.

    ``border`` matches nothing, between at most ``width`` bytes on either side. The start of a
    file is one, too.
    """
    size = span.path.stat().st_size
    with open(span.path, "rb") as file:
        start = _border(file, span.start, border, width, size) if span.start else 0
        stop = _border(file, span.stop, border, width, size) if span.stop < size else size
        file.seek(start)
        return start, file.read(max(0, stop - start))


def _border(file: IO[bytes], at: int, border: re.Pattern[bytes], width: int, size: int) -> int:
    """The first match of ``border`` from ``at`` on; ``size`` where there is none."""
    begin = max(0, at - width)
    file.seek(begin)
    window, searched = b"", at - begin
    while block := file.read(BLOCK):
        window += block
        if found := border.search(window, searched):
            return begin + found.start()
        searched = max(searched, len(window) - width)
        passed = max(0, searched - width)
        begin, window, searched = begin + passed, window[passed:], searched - passed
    return size
