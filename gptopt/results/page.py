"""A report as a list of blocks, written as one self-contained HTML page or as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --warn: #b45309; }
@media (prefers-color-scheme: dark) { :root { --warn: #f5b041; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h1, h2 { line-height: 1.25; overflow-wrap: anywhere; }
.warnings { border-left: 4px solid var(--warn); background: var(--soft); padding: .6rem 1rem; }
.warnings ul { margin: 0; padding-left: 1.1rem; } .warnings, pre { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
th, td { white-space: nowrap; vertical-align: top; } td:last-child { white-space: normal; }
figure { margin: 1.5rem 0; } figcaption { font-size: .85rem; opacity: .8; }
figure img { max-width: min(100%, 42rem); height: auto; background: #fff; border-radius: 4px; }
pre { background: var(--soft); padding: .8rem; white-space: pre-wrap; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

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
    """Rows of text below a head."""

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


Block = Heading | Text | Warnings | Table | Image | Code


def to_html(blocks: Iterable[Block], title: str) -> str:
    """A page that needs nothing beside it and follows the reader's light or dark theme."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(blocks: Iterable[Block]) -> str:
    """The same as Markdown, with the figures as files."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Warnings(items):
            listed = "".join(f"<li>{escape(item)}</li>" for item in items)
            return f'<div class="warnings"><ul>{listed}</ul></div>'
        case Table(head, rows):
            cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
            lines = "".join(
                f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
            )
            return (
                f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n'
                f"<tbody>{lines}</tbody></table></div>"
            )
        case Image(png, stem, caption):
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            return (
                f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>'
                f'{escape(caption)} <a href="{escape(stem)}.pdf">PDF</a></figcaption></figure>'
            )
        case Code(text):
            return f"<pre>{escape(text)}</pre>"


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
            escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        case Image(_, stem, caption):
            return f"![]({stem}.png)\n\n{caption} [PDF]({stem}.pdf)"
        case Code(text):
            return f"```\n{text}\n```"
