"""Corpora: opening one by its config node. Batches are ``gptopt.data.loader`` (needs torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptopt.config.resolve import load_part
from gptopt.data.checks import check_enough, check_ids
from gptopt.data.corpus import Corpus, DataError, MissingDataError, TokenSource
from gptopt.data.obtain import how_to_obtain

__all__ = ["Corpus", "DataError", "TokenSource", "check_enough", "check_ids", "open_corpus"]


def open_corpus(data: Mapping[str, Any], data_root: str | Path) -> Corpus:
    """Opens the corpus that the config node ``data`` describes.

    Args:
        data: ``name``, ``format`` (a file of ``gptopt/data/formats``) and that format's keys.
        data_root: Where relative paths start.

    Raises:
        DataError: Missing, unreadable, damaged or too small; missing data comes with the
            command that prepares it.
    """
    keys = {key: value for key, value in data.items() if key not in ("name", "format")}
    root = Path(data_root).expanduser().absolute()
    build = load_part("data.formats", data["format"]).build
    try:
        return build(data_root=root, **keys)
    except MissingDataError as error:
        raise MissingDataError(
            f"data={data['name']}: {error}\nThe data root is {root} (paths.data_root, or the "
            f"environment variable DATA_ROOT).\n{how_to_obtain(data, root)}"
        ) from error
