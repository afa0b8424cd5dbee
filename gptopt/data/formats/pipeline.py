"""Files of text larger than memory, tokenized while a run reads them.

Files are cut into units of about 4 MiB (of a .parquet file, its row groups). The first time, all
of them go through the stages of ``gptopt/data/stages.py`` once, to count their tokens; the counts
are kept in <data root>/indexes. From then on any token is found by its number: the corpus is a
source like the others, with the same order for any batch size and number of devices, and a run
that resumes tokenizes no more than its buffer and the units at both ends of it.

In memory are the tokens of those units, and the text of one. Every device tokenizes all that its
buffer holds, so where many of them or many runs read the same corpus, `gptopt data prepare` it.

The tail of the tokens is held out. The fingerprint is the sha256 over names and sampled contents
of the files, the vocabulary, the keys of stages and documents, and ``val_split``.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gptopt.config.types import PositiveInt, Share
from gptopt.data import stages as stage_functions
from gptopt.data.corpus import Corpus, DataError, MissingDataError
from gptopt.data.hashing import fingerprint
from gptopt.data.shards import sampled_sha256
from gptopt.data.stages import Flow
from gptopt.data.stored import split
from gptopt.data.texts import Span, TextOptions, find_files, units
from gptopt.data.tokenizers import id_type
from gptopt.files import read_json, write_json

log = logging.getLogger(__name__)

Unit = tuple[Span, ...]
INDEXES = "indexes"


def build(
    *,
    data_root: Path,
    path: str,
    patterns: list[str],
    fields: list[str],
    separator: str | None,
    stages: list[dict],
    val_split: PositiveInt | Share,
) -> Corpus:
    """Opens the file at ``path``, or the files of that directory."""
    place = data_root / Path(path).expanduser()
    if not place.exists():
        raise MissingDataError(f"data.path={path}: no file or directory {place}.")
    texts = TextOptions(tuple(fields), tuple(patterns), separator)
    flow = Flow(data_root, texts)
    for stage in stages:
        keys = {key: value for key, value in stage.items() if key != "name"}
        flow = getattr(stage_functions, stage["name"])(flow, **keys)
    files = find_files([place], patterns)
    base = place if place.is_dir() else place.parent
    samples = {str(file.relative_to(base)): sampled_sha256(file) for file in files}
    # The buffer changes the order, which has a fingerprint of its own, and no token.
    made = [stage for stage in stages if stage["name"] != "shuffle"]
    asked = json.dumps([fields, separator, made], sort_keys=True)
    prints = [("vocabulary", flow.vocabulary.encode()), ("asked", asked.encode())]
    prints += [(name, sample.encode()) for name, sample in samples.items()]
    portions = units(files, texts)
    counts = _counts(flow, portions, data_root / INDEXES / f"{fingerprint(prints)}.json")
    if not counts[0].any():
        raise DataError(f"{place}: no tokens in it. A chunk may be longer than every document.")
    # Two streams: training reads in a thread of its own.
    train, _ = split(Stream(flow, portions, *counts), val_split)
    _, val = split(Stream(replace(flow, buffer=0), portions, *counts), val_split)
    return Corpus(
        train,
        val,
        fingerprint([*prints, ("val_split", repr(val_split).encode())]),
        vocab_size=flow.vocab_size,
        files={name: f"sampled sha256 {sample}" for name, sample in samples.items()},
    )


def _counts(flow: Flow, portions: Sequence[Unit], place: Path) -> np.ndarray:
    """Tokens of each unit, and the highest id in it: (2, units) int64, kept in ``place``."""
    known: Any = read_json(place)
    if isinstance(known, list) and len(known) == 2 and len(known[0]) == len(portions):
        return np.array(known, dtype=np.int64)
    size = sum(span.size for unit in portions for span in unit)
    log.info("counting the tokens of %.1f MB of text, this once", size / 1e6)
    counts = np.zeros((2, len(portions)), dtype=np.int64)
    for number, unit in enumerate(portions):
        ids = _ids(flow, unit)
        counts[:, number] = len(ids), ids.max(initial=0)
    # Where the data root cannot be written, every run counts.
    with contextlib.suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        write_json(place, counts.tolist())
    return counts


def _ids(flow: Flow, unit: Unit) -> np.ndarray:
    """All ids of a unit, packed end to end."""
    empty = np.empty(0, dtype=id_type(flow.vocab_size))
    try:
        return np.concatenate([empty, *(piece.ids for piece in flow.pieces(unit))])
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read: {error.strerror}. Bring the file back, and start "
            "the run again."
        ) from error


class Stream:
    """A ``TokenSource`` over units of text, for one thread.

    Args:
        flow: What is done to the text.
        portions: The units.
        tokens, highest: Of each unit, shape (units,).
    """

    def __init__(
        self, flow: Flow, portions: Sequence[Unit], tokens: np.ndarray, highest: np.ndarray
    ) -> None:
        self.dtype, self.buffer = id_type(flow.vocab_size), flow.buffer
        self.max_id = int(highest.max())
        self._flow, self._portions, self._tokens = flow, portions, tokens
        self._ends = np.cumsum(tokens)
        self._room = flow.buffer + 2 * int(tokens.max())
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, window: slice) -> np.ndarray:
        """Tokens ``window.start`` ... ``window.stop - 1``, shape (stop - start,)."""
        tokens = np.empty(window.stop - window.start, dtype=self.dtype)
        number, done = int(np.searchsorted(self._ends, window.start, side="right")), 0
        while done < len(tokens):
            within = window.start + done - int(self._ends[number] - self._tokens[number])
            part = self._unit(number)[within : within + len(tokens) - done]
            tokens[done : done + len(part)] = part
            number, done = number + 1, done + len(part)
        return tokens

    def _unit(self, number: int) -> np.ndarray:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        ids = _ids(self._flow, self._portions[number])
        if len(ids) != self._tokens[number]:
            raise DataError(
                f"{self._portions[number][0].path}: has {len(ids)} tokens where it had "
                f"{self._tokens[number]} when they were counted. The file has changed: start anew."
            )
        held = sum(map(len, self._held.values())) + len(ids)
        while held > self._room:
            _, oldest = self._held.popitem(last=False)
            held -= len(oldest)
        self._held[number] = ids
        return ids
