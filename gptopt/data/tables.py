"""Tables on disk, .parquet and Arrow files, through the package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from gptopt.data.corpus import DataError, MissingDataError


@contextmanager
def errors_of(path: Path) -> Iterator[Any]:
    """Gives pyarrow; its errors become ours, with the name of the file.

    Raises:
        DataError: The file is damaged, or not what its name says.
        MissingDataError: pyarrow is not installed.
    """
    try:
        package = import_module("pyarrow")
    except ImportError as error:
        raise MissingDataError(f"{path} is read by a package: pip install pyarrow") from error
    try:
        yield package
    except (package.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Copy or write it again.") from error


def row_groups(path: Path) -> int:
    """Parts of a table that can be read alone; an Arrow stream is one."""
    if path.suffix != ".parquet":
        return 1
    with errors_of(path):
        groups = import_module("pyarrow.parquet").ParquetFile(path).metadata.num_row_groups
    return max(1, groups)


def rows_of_table(path: Path, group: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row) of the rows of a row group."""
    number = 0
    for batch in batches(path, group):
        for row in batch.to_pylist():
            yield number, row
            number += 1


def batches(path: Path, group: int | None) -> Iterator[Any]:
    """Record batches of a .parquet file (one row group of it, or all), or of an Arrow file.

    Read into memory, never mapped: a file that shrinks is an error and not a signal.
    """
    with errors_of(path) as package:
        if path.suffix == ".parquet":
            table = import_module("pyarrow.parquet").ParquetFile(path, memory_map=False)
            groups = range(table.metadata.num_row_groups) if group is None else [group]
            for number in groups:
                if number < table.metadata.num_row_groups:
                    yield from table.read_row_group(number).to_batches()
            return
        with package.OSFile(str(path)) as file:
            try:  # datasets writes streams; files of Arrow have an index at the end
                reader = package.ipc.open_stream(file)
            except package.ArrowInvalid:
                file.seek(0)
                random_access = package.ipc.open_file(file)
                for number in range(random_access.num_record_batches):
                    yield random_access.get_batch(number)
                return
            yield from reader
