"""A report as a list of blocks, written as one self-contained HTML page or as Markdown."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
STYLE, SCRIPT = HERE / "page.css", HERE / "page.js"
FOLDED_ROWS = 25
"""A table with more rows is folded, has a search field and scrolls in itself."""

FEW_COLUMNS = 3
"""A table with no more has sentences in its last one, which are wrapped."""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title, those of level 2 are its table of contents."""

    text: str
    level: int


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Warnings:
    """Sentences that must not be overlooked."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text below a head; on the page a click on the head sorts them."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Image:
    """A PNG file: its content and where it lies relative to the page, without its ending."""

    png: bytes
    stem: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    text: str


@dataclass(frozen=True)
class Link:
    """A file beside the page, and what it is."""

    file: str
    text: str


Block = Heading | Text | Warnings | Table | Image | Code | Link


def to_html(blocks: Sequence[Block], title: str) -> str:
    """A page that needs nothing beside it and follows the reader's light or dark theme.

    Args:
        blocks: The first one is the heading of level 1.
        title: In the window's bar.
    """
    sections = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    places = iter(range(len(sections)))
    body = []
    for are_figures, group in itertools.groupby(blocks, lambda block: isinstance(block, Image)):
        parts = [_html(block, places) for block in group]
        body += ['<div class="figures">', *parts, "</div>"] if are_figures else parts
    body.insert(1, _contents(sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or a browser asks for one
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n"
        f"<body>\n{chr(10).join(body)}\n<script>\n{SCRIPT.read_text()}</script>\n</body>\n</html>\n"
    )


def to_markdown(blocks: Iterable[Block]) -> str:
    """The same as Markdown, with the figures as files."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _contents(sections: Sequence[str]) -> str:
    links = (f'<li><a href="#part-{n}">{escape(text)}</a></li>' for n, text in enumerate(sections))
    return f"<nav><ul>{''.join(links)}</ul></nav>"


def _html(block: Block, places: Iterator[int]) -> str:
    match block:
        case Heading(text, level):
            place = f' id="part-{next(places)}"' if level == 2 else ""
            return f"<h{level}{place}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Warnings(items):
            listed = "".join(f"<li>{escape(item)}</li>" for item in items)
            return f'<div class="warnings"><ul>{listed}</ul></div>'
        case Table(head, rows):
            return _table(head, rows)
        case Image(png, stem, caption):
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            return (
                f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>'
                f'{escape(caption)} <a href="{escape(stem)}.pdf">PDF</a></figcaption></figure>'
            )
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Link(file, text):
            return f'<p><a href="{escape(file)}">{escape(file)}</a>: {escape(text)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    kind = ' class="wrapped"' if len(head) <= FEW_COLUMNS else ""
    table = f"<table{kind}><thead><tr>{cells}</tr></thead>\n<tbody>{lines}</tbody></table>"
    if len(rows) <= FOLDED_ROWS:
        return f'<div class="scroll">{table}</div>'
    return (
        f'<details class="long"><summary>{len(rows)} rows</summary>'
        f'<div class="scroll">{table}</div></details>'
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Warnings(items):
            return "\n".join(f"> - {item}" for item in items)
        case Table(head, rows):
            lines = [head, ["---"] * len(head), *rows]
            escaped = (
                [" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines
            )
            return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        case Image(_, stem, caption):
            return f"![]({stem}.png)\n\n{caption} [PDF]({stem}.pdf)"
        case Code(text):
            return f"```\n{text}\n```"
        case Link(file, text):
            return f"[{file}]({file}): {text}"
