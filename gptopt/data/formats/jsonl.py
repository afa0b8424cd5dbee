"""Documents of .jsonl files, tokenized when the run starts: for corpora of some megabytes.

A line is a document; what its text is stands in ``gptopt/data/texts.py``. Each begins with the
tokenizer's end-of-text token; the tail of the tokens is held out. `gptopt data prepare` makes
shards of larger corpora, which many runs can share.
"""

from __future__ import annotations

from pathlib import Path

from gptopt.config.types import PositiveInt, Share
from gptopt.data.corpus import Corpus, MissingDataError
from gptopt.data.memory import corpus_of, joined
from gptopt.data.shards import sampled_sha256
from gptopt.data.texts import TextOptions, documents, find_files
from gptopt.data.tokenizers import load_tokenizer


def build(
    *,
    data_root: Path,
    path: str,
    fields: list[str],
    tokenizer: str,
    allow_pickle: bool,
    val_split: PositiveInt | Share | None,
) -> Corpus:
    """Reads the file at ``path``, or the .jsonl files of that directory."""
    place = data_root / Path(path).expanduser()
    if not place.exists():
        raise MissingDataError(f"data.path={path}: no file or directory {place}.")
    encoder = load_tokenizer(tokenizer, data_root, allow_pickle=allow_pickle)
    options = TextOptions(tuple(fields), ("*.jsonl",), separator=None)
    files = find_files([place], options.patterns)
    texts = ((document.text, document.starts) for document in documents(files, options))
    tokens = joined(encoder, texts, str(place))
    summaries = {str(file): f"sampled sha256 {sampled_sha256(file)}" for file in files}
    return corpus_of(tokens, val_split, str(place), encoder.vocab_size, summaries)
