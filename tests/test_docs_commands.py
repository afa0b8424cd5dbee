"""Every command that README and docs show can be given: its words exist, its settings compose."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

import gptopt
from gptopt.cli import main
from gptopt.layout import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
RUN = ["python", "run_hydra.py"]
MADE_UP = ("nsgd", "mine", "my_", "my-", "<", "$", "…")
"""Words of commands whose files are the reader's own."""


def commands(first: list[str]) -> list[tuple[str, list[str]]]:
    """(page, words) of each shown command that begins with ``first``."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
                lexer.whitespace_split = True
                for is_end, part in itertools.groupby(lexer, lambda word: not word.strip(";&|")):
                    words = [*part]
                    start = next((n for n, word in enumerate(words) if "=" not in word), 0)
                    if not is_end and words[start : start + len(first)] == first:
                        found.append((page.name, words[start + len(first) :]))
    return found


@pytest.mark.parametrize(("page", "words"), commands(["gptopt"]))
def test_a_shown_command_exists_with_its_options(page: str, words: list[str]) -> None:
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"{page}: gptopt has no {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(list(words))  # raises for an unknown option


@pytest.mark.parametrize(("page", "words"), commands(RUN))
def test_a_shown_run_composes(page: str, words: list[str], tmp_path: Path) -> None:
    overrides = [word for word in words if "=" in word]
    if "-m" in words:  # the first of each list
        overrides = [re.sub(r"=([^\[{(,]*),.*", r"=\1", word) for word in overrides]
    if any(sign in word for word in overrides for sign in MADE_UP):
        pytest.skip("speaks of files that the reader makes")
    gptopt.compose([*overrides, f"paths.output_dir={tmp_path}"])
