"""From a name in the config to the file that stands behind it, without importing it.

    optimizer_params.name: muon  ->  gptopt/optim/muon.py
    model.family: gpt            ->  gptopt/models/gpt.py
    data.format: text            ->  gptopt/data/formats/text.py
    logging.trackers.wandb       ->  gptopt/tracking/wandb.py

``GPTOPT_PLUGINS`` lists further directories that are laid out like ``gptopt/``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import typing
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from gptopt.config import types

Kind = Literal["optim", "models", "data.formats", "tracking"]
PACKAGE = Path(__file__).resolve().parent.parent


def plugin_directories() -> list[Path]:
    """The directories named by the environment variable GPTOPT_PLUGINS."""
    listed = os.environ.get("GPTOPT_PLUGINS", "").split(os.pathsep)
    return [Path(part).expanduser() for part in listed if part]


def find_part(kind: Kind, name: str) -> Path | None:
    """The file of part ``name``: first in gptopt itself, then in the plugin directories."""
    stem = name.replace("-", "_")
    if not stem.isidentifier():
        return None
    for root in [PACKAGE, *plugin_directories()]:
        file = root.joinpath(*kind.split("."), f"{stem}.py")
        if file.is_file() and "build" in functions(file):
            return file
    return None


def part_names(kind: Kind) -> list[str]:
    """Every part of ``kind`` there is, under its name in a config (dashes, not underscores)."""
    names = set()
    for root in [PACKAGE, *plugin_directories()]:
        for file in root.joinpath(*kind.split(".")).glob("*.py"):
            if "build" in functions(file):
                names.add(file.stem.replace("_", "-"))
    return sorted(names)


def load_part(kind: Kind, name: str) -> ModuleType:
    """Imports the file of part ``name``.

    Raises:
        ValueError: There is no such file.
    """
    file = find_part(kind, name)
    if file is None:
        raise ValueError(f"no {kind} file for {name!r}. There are: {', '.join(part_names(kind))}.")
    if file.is_relative_to(PACKAGE):
        return importlib.import_module(f"gptopt.{kind}.{file.stem}")
    module_name = f"gptopt_plugins.{kind}.{file.stem}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    return sys.modules[module_name]


@cache
def functions(file: Path) -> dict[str, ast.FunctionDef]:
    """The public functions at the top level of ``file``, by name."""
    body = _parsed(file).body
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    return {name: node for name, node in found.items() if not name.startswith("_")}


def keys_of(file: Path, function: str = "build") -> dict[str, Any]:
    """Key -> type of what ``function`` in ``file`` takes from the config, read by ast.

    These are its keyword-only parameters; or, when its only parameter is annotated with a
    dataclass of the same file, the fields of that dataclass.
    """
    arguments = functions(file)[function].args
    keys = {arg.arg: arg.annotation for arg in arguments.kwonlyargs}
    if not keys and len(arguments.args) == 1 and isinstance(arguments.args[0].annotation, ast.Name):
        wanted = arguments.args[0].annotation.id
        for node in _parsed(file).body:
            if isinstance(node, ast.ClassDef) and node.name == wanted:
                fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
                keys = {f.target.id: f.annotation for f in fields if isinstance(f.target, ast.Name)}
    namespace = vars(types) | vars(typing) | {"Path": Path}
    return {
        name: eval(ast.unparse(annotation), dict(namespace)) if annotation else Any  # noqa: S307
        for name, annotation in keys.items()
    }


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
