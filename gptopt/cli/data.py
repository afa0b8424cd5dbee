"""``gptopt data``: make token shards from text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gptopt.cli.common import reports_errors


@click.group()
def data() -> None:
    """Make token shards from text."""


@data.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new directory.")
@click.option("--tokenizer", default="gpt2", show_default=True, help="gpt2 or bytes.")
@click.option("--val-share", default=0.005, show_default=True, help="Part of the documents.")
@click.option("--shard-tokens", default=100_000_000, show_default=True, help="Tokens of a file.")
@click.option("--text-key", default="text", show_default=True, help="Field of a .jsonl line.")
@click.option("--data-root", default="data", envvar="DATA_ROOT", show_default=True)
@reports_errors
def prepare(sources: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Tokenize SOURCES (.txt, .jsonl, or directories of them) into shards for data=bin."""
    from gptopt.data.prepare import prepare

    tokens = prepare(sources, out, **options)["tokens"]
    click.echo(f"{out}: {tokens['train']:,} tokens to train on, {tokens['val']:,} held out")
