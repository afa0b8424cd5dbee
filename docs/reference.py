"""Writes the tables of all keys in configuration.md: ``python docs/reference.py``.

Values and comments come from the YAML files, types from the schema and from the signatures of
the parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from gptopt.config import resolve, schema
from gptopt.config.checks import choices_of, schedule_keys
from gptopt.config.values import describe
from gptopt.layout import HYDRA_CONF

PAGE = Path(__file__).with_name("configuration.md")
BEGIN, END = "<!-- written by docs/reference.py -->", "<!-- end -->"
LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*?)(?:(?:^|\s+)# ?(?P<comment>.*))?$")
OWN_KEYS = ("optimizer", "lr_scheduler", "data", "logging")
"""Groups in which every option has keys of its own; in the others all share those of the first."""
GROUPS = {
    "model": "gpt-tiny",
    "optimizer": "adamw",
    "lr_scheduler": "wsd",
    "data": "stdlib",
    "clipping": "norm",
    "training": "tiny",
    "logging": "wandb",
    "checkpoint": "default",
    "distributed": "auto",
    "profile": "none",
    "cluster": "local",
    "paths": "default",
    "experiment": "debug",
}
"""Every group, with the option whose file comes first and explains the keys."""
NODES = {"clipping": "training.training_params"}
"""Group -> the node of its keys, where it is not the one of the group's name."""


@dataclass(frozen=True)
class Row:
    """One line ``key: value  # comment`` of a YAML file; a node has no value."""

    path: str
    value: str
    comment: str


def read(file: Path) -> tuple[str, list[Row]]:
    """The comment at the top of a YAML file, and its keys in order."""
    header: list[str] = []
    rows: list[Row] = []
    nodes: list[tuple[int, str]] = []
    for line in file.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment = text.lstrip("# ").strip()
            if not rows:
                header.append(comment)
            elif line.startswith(" "):  # the comment of the line above goes on
                rows[-1] = Row(rows[-1].path, rows[-1].value, f"{rows[-1].comment} {comment}")
        elif match := LINE.match(line):
            indent = len(match["indent"])
            nodes = [node for node in nodes if node[0] < indent] + [(indent, match["key"])]
            path = ".".join(key for _, key in nodes)
            rows.append(Row(path, match["value"].strip(), match["comment"] or ""))
    text = " ".join(line for line in header if not line.startswith("@package"))
    return text.replace("<", "&lt;"), rows


def rows_of(group: str, option: str) -> tuple[str, list[Row]]:
    """``read`` for an option of a group; what follows ``defaults`` is left out."""
    header, rows = read(HYDRA_CONF / group / f"{option}.yaml")
    return header, [row for row in rows if row.path != "defaults"]


def options(group: str) -> list[str]:
    """The options of a group, the one that explains the keys first."""
    first = GROUPS[group]
    return [first, *(option for option in choices_of(group) if option != first)]


def comment(group: str, row: Row) -> str:
    """What is said about a key: in its file, in another of the group, or for ``aux`` in AdamW's."""
    if row.comment or not row.value:
        return row.comment
    for option in options(group):
        for other in rows_of(group, option)[1]:
            if other.comment and other.path == row.path.replace(".aux.", "."):
                return other.comment
    return ""


def types(group: str, option: str) -> dict[str, Any]:
    """Dotted key inside the node -> type, of every key that ``option`` has."""
    content = yaml.safe_load((HYDRA_CONF / group / f"{option}.yaml").read_text())
    match group:
        case "optimizer":
            params = content["optimizer_params"]
            file = resolve.find_part("optim", params["name"])
            keys = flat(schema.OptimizerCommon) | (resolve.keys_of(file) if file else {})
            return {f"optimizer_params.{key}": kind for key, kind in keys.items()}
        case "model":
            file = resolve.find_part("models", content["family"])
            assert file is not None
            keys = resolve.keys_of(file)
            return {"name": str, "family": str} | {f"config.{k}": v for k, v in keys.items()}
        case "data":
            file = resolve.find_part("data.formats", content["format"])
            assert file is not None
            inner = {f"sources.{label}": dict for label in content.get("sources", {})}
            return {"name": str, "format": str} | resolve.keys_of(file) | inner
        case "lr_scheduler":
            return schedule_keys(content["name"])
        case "logging":
            file = resolve.find_part("tracking", option)
            assert file is not None
            return {f"trackers.{option}.{k}": v for k, v in resolve.keys_of(file).items()}
        case "clipping":
            return flat(schema.TrainingParams)
        case _:
            return flat(getattr(schema, group.capitalize()))


def flat(kind: Any) -> dict[str, Any]:
    """Dotted key -> type of a dataclass and of the dataclasses in it."""
    keys: dict[str, Any] = {}
    for key, inner in get_type_hints(kind, include_extras=True).items():
        if hasattr(inner, "__dataclass_fields__"):
            keys |= {f"{key}.{deeper}": k for deeper, k in flat(inner).items()}
        else:
            keys[key] = inner
    return keys


def table(group: str, rows: list[Row], kinds: dict[str, Any]) -> Iterator[str]:
    """One line of Markdown per key that has a value."""
    yield "| key | default | takes | meaning |"
    yield "|---|---|---|---|"
    for row in rows:
        if row.value:
            said = comment(group, row).replace("<", "&lt;")
            takes = describe(kinds[row.path]) if row.path in kinds else elsewhere(row.path)
            yield f"| `{NODES.get(group, group)}.{row.path}` | `{row.value}` | {takes} | {said} |"


def elsewhere(path: str) -> str:
    """What takes a key that no file here knows."""
    return "what its library takes" if ".settings." in path else "not checked yet"


def reference() -> str:
    """All tables."""
    lines: list[str] = []
    for group in GROUPS:
        lines += [f"### {group}", ""]
        if group == "logging":
            _, rows = read(HYDRA_CONF / "config.yaml")
            own = [r for r in rows if r.path.startswith("logging.logging_params.")]
            inside = [Row(r.path.removeprefix("logging."), r.value, r.comment) for r in own]
            lines += [*table(group, inside, flat(schema.Logging)), ""]
        if group == "data":
            _, rows = read(HYDRA_CONF / "config.yaml")
            own = [r for r in rows if r.path.startswith("data.") and r.value]
            inside = [Row(r.path.removeprefix("data."), r.value, r.comment) for r in own]
            lines += ["Keys that every corpus has:", ""]
            lines += [*table(group, inside, flat(schema.DataCommon)), ""]
        for option in options(group):
            header, rows = rows_of(group, option)
            sign = "+" if group in ("logging", "experiment") else ""
            lines += [f"`{sign}{group}={option}`" + (f": {header}" if header else ""), ""]
            if group in OWN_KEYS or (option == GROUPS[group] and group != "experiment"):
                lines += [*table(group, rows, types(group, option)), ""]
    return "\n".join(lines)


def page(text: str) -> str:
    """``text`` of configuration.md with fresh tables."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
