"""``gptopt data``: make token shards from text, and look at what there is."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import yaml

from gptopt import layout
from gptopt.cli.common import reports_errors

if TYPE_CHECKING:
    from gptopt.data.preparation.prepare import Progress
    from gptopt.data.texts import TextOptions

PATTERNS = ("*.txt", "*.jsonl", "*.parquet")
SOURCES = click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
DIRECTORY = click.argument(
    "directory", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
DATA_ROOT = click.option(
    "--data-root",
    default="data",
    envvar="DATA_ROOT",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where corpora and tokenizers lie.",
)
PICKLE = click.option(
    "--allow-pickle", is_flag=True, help="Open a .pkl tokenizer: it may run code."
)
FIELD = click.option(
    "--field",
    "fields",
    multiple=True,
    default=("text",),
    show_default=True,
    help="Key of a .jsonl line or column of a table; several are joined.",
)
PATTERN = click.option(
    "--pattern",
    "patterns",
    multiple=True,
    default=PATTERNS,
    show_default=True,
    help="Files of a directory.",
)
SEPARATOR = click.option("--separator", help="Stands between documents of a text file.")


def text_options(
    fields: tuple[str, ...], patterns: tuple[str, ...], separator: str | None
) -> TextOptions:
    """What documents are, by the three options above."""
    from gptopt.data.texts import TextOptions

    return TextOptions(fields, patterns, separator)


def found(tokenizer: str) -> str:
    """A tokenizer's file in the working directory under its full path; other names as they are."""
    return str(Path(tokenizer).absolute()) if Path(tokenizer).is_file() else tokenizer


@click.group()
def data() -> None:
    """Make token shards from text, and look at what there is."""


@data.command()
@SOURCES
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new directory.")
@click.option(
    "--tokenizer", default="gpt2", show_default=True, help="bytes, gpt2, or a vocabulary file."
)
@click.option("--val-share", default=0.005, show_default=True, help="Part of the documents.")
@click.option("--shard-tokens", default=100_000_000, show_default=True, help="Tokens of a file.")
@click.option("--shuffle-seed", type=click.IntRange(min=0), help="Shuffle documents by this seed.")
@click.option("--deduplicate", is_flag=True, help="Keep one of equal documents.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@PATTERN
@FIELD
@SEPARATOR
@PICKLE
@DATA_ROOT
@reports_errors
def prepare(
    sources: tuple[Path, ...],
    out: Path,
    tokenizer: str,
    workers: int | None,
    data_root: Path,
    fields: tuple[str, ...],
    patterns: tuple[str, ...],
    separator: str | None,
    **settings: Any,
) -> None:
    """Tokenize SOURCES (files or directories) into shards for data=bin.

    Stopped at any moment, the same command goes on; the result is the same, byte for byte.
    """
    from gptopt.data.preparation.options import Options
    from gptopt.data.preparation.prepare import prepare

    texts = text_options(fields, patterns, separator)
    manifest = prepare(
        sources,
        out,
        options=Options(tokenizer=found(tokenizer), texts=texts, **settings),
        workers=workers or len(os.sched_getaffinity(0)),
        data_root=data_root,
        report=Ticker().show,
    )
    tokens, place, root = manifest["tokens"], out.absolute(), data_root.absolute()
    place = place.relative_to(root) if place.is_relative_to(root) else place
    click.echo(f"{out}: {tokens['train']:,} tokens to train on, {tokens['val']:,} held out")
    size = manifest["vocab_size"]
    overrides = ["data=bin", f"data.name={out.name}", f"data.train={place}/train_*.bin"]
    overrides += [f"data.val={place}/val_*.bin", f"data.tokenizer={manifest['tokenizer']}"]
    overrides += [f"data.vocab_size={size}", f"model.config.vocab_size={size}"]
    preset = yaml.safe_load((layout.HYDRA_CONF / "config.yaml").read_text(encoding="utf-8"))
    if tokens["val"] <= preset["logging"]["logging_params"]["eval_tokens"]:
        overrides.append("logging.logging_params.eval_tokens=null")  # all of them
    click.echo(f"python run_hydra.py {shlex.join(overrides)}")


class Ticker:
    """One line on a terminal that is written over, or a line every half minute elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.next = 0.0

    def show(self, progress: Progress) -> None:
        """Bytes done, speed, and the time that is left at that speed."""
        now, last = time.monotonic(), progress.done == progress.total
        if now < self.next and not last:
            return
        self.next = now + (0.2 if self.terminal else 30)
        speed = max(1, progress.done - progress.before) / max(progress.seconds, 1e-3)
        minutes, seconds = divmod(round((progress.total - progress.done) / speed), 60)
        line = (
            f"{progress.done / 1e6:,.1f} of {progress.total / 1e6:,.1f} MB, "
            f"{speed / 1e6:.1f} MB/s, {minutes}:{seconds:02d} left"
        )
        end = "\n" if last or not self.terminal else ""
        click.echo(f"\r{line:<60}{end}" if self.terminal else line, err=True, nl=not self.terminal)


@data.command("train-tokenizer")
@SOURCES
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new .json file.")
@click.option("--kind", type=click.Choice(["bpe", "characters"]), default="bpe", show_default=True)
@click.option("--vocab-size", default=8192, show_default=True, help="Of a bpe.")
@PATTERN
@FIELD
@SEPARATOR
@reports_errors
def train_tokenizer(
    sources: tuple[Path, ...],
    out: Path,
    kind: Literal["bpe", "characters"],
    vocab_size: int,
    fields: tuple[str, ...],
    patterns: tuple[str, ...],
    separator: str | None,
) -> None:
    """Learn a vocabulary from SOURCES, for --tokenizer and data.tokenizer."""
    from gptopt.data.preparation.train_tokenizer import train_tokenizer

    options = text_options(fields, patterns, separator)
    size = train_tokenizer(sources, out, kind=kind, vocab_size=vocab_size, options=options)
    click.echo(f"{out}: {size} ids")


@data.command()
@click.argument("corpus", nargs=-1, required=True)
@click.option("--preview", default=2, show_default=True, help="Samples of each part.")
@PICKLE
@DATA_ROOT
@reports_errors
def inspect(corpus: tuple[str, ...], preview: int, allow_pickle: bool, data_root: Path) -> None:
    """Counts, lengths, ids, checksums and samples of CORPUS.

    CORPUS is a directory that prepare made, or what a run is given: data=text data.path=a.txt
    """
    from gptopt.data import open_corpus
    from gptopt.data.inspect import describe, node_of_directory, node_of_preset, tokenizer_of

    values = {key: yaml.safe_load(value) for key, _, value in (t.partition("=") for t in corpus)}
    if len(corpus) == 1 and "=" not in corpus[0]:
        node = node_of_directory(Path(corpus[0]))
    else:
        name = str(values.pop("data", "stdlib"))
        changes = {key.removeprefix("data."): value for key, value in values.items()}
        node = node_of_preset(name, changes)
    decode, end_of_text = tokenizer_of(node, data_root, allow_pickle)
    for line in describe(open_corpus(node, data_root), decode, end_of_text, preview):
        click.echo(line)


@data.command()
@DIRECTORY
@reports_errors
def verify(directory: Path) -> None:
    """Read all shards in DIRECTORY and compare them with their manifest."""
    from gptopt.data.verify import verify

    click.echo(f"{directory}: {verify(directory)} shards are as the manifest says")


@data.command("list")
@DATA_ROOT
@reports_errors
def list_corpora(data_root: Path) -> None:
    """The presets, which of them are there, and how to obtain the others."""
    from gptopt.data.manifest import MANIFEST
    from gptopt.data.obtain import how_to_obtain, presets, state_of

    root = data_root.absolute()
    known = list(presets())
    for node in known:
        state = state_of(node, root)
        click.echo(f"{node['name']:<18} {node['format']:<9} {state}")
        if state == "missing":
            click.echo("    " + how_to_obtain(node, root).replace("\n", "\n    "))
    names = {node["name"] for node in known}
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        if manifest.parent.name not in names:
            click.echo(f"{manifest.parent.name:<18} {'bin':<9} prepared here")
