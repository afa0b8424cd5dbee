"""From a name in the config to the file that stands behind it, without importing it.

    optimizer_params.name: muon  ->  gptopt/optim/muon.py
    model.family: gpt            ->  gptopt/models/gpt.py
    data.format: text            ->  gptopt/data/formats/text.py
    logging.trackers.wandb       ->  gptopt/tracking/wandb.py

A plugin is a directory outside of this package that is laid out like it, with the YAML files of
its parts inside:

    optim/nsgd.py
    hydra_conf/optimizer/nsgd.yaml

It is named in the environment variable ``GPTOPT_PLUGINS``, or is that of an installed package
with an entry point of the group ``gptopt.optimizers``. No name of a plugin may be one of ours,
or of another plugin.

An optimizer of a library goes by its dotted name; behind it is gptopt/optim/common/bridge.py:

    optimizer_params.name: pytorch_optimizer.Lamb
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
import typing
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from gptopt import layout
from gptopt.config import types
from gptopt.config.problems import ConfigError, Problem

Kind = Literal["optim", "models", "data.formats", "tracking"]
KINDS = typing.get_args(Kind)
PACKAGE = Path(__file__).resolve().parent.parent
PLUGINS = "GPTOPT_PLUGINS"
ENTRY_POINTS = "gptopt.optimizers"
BRIDGE = PACKAGE / "optim" / "common" / "bridge.py"
LIBRARIES = ("pytorch_optimizer", "schedulefree", "prodigyopt")
"""What gptopt/optim/common/bridge.py knows how to drive."""
WIDTH_RULE = "width_rule"
"""What an optimizer's file calls how its lr follows the width; gptopt/optim/common/width.py."""


def plugin_directories() -> list[Path]:
    """Every plugin: those of GPTOPT_PLUGINS, then those of installed packages."""
    listed = os.environ.get(PLUGINS, "").split(os.pathsep)
    named = [Path(part).expanduser().absolute() for part in listed if part]
    return list(dict.fromkeys([*named, *_installed_plugins()]))


def distribution_of(file: Path) -> metadata.Distribution | None:
    """The installed package that brings ``file`` as a part of its plugin; None for others."""
    homes = (brought for root, brought in _installed_plugins().items() if root in file.parents)
    return next(homes, None)


@cache
def _installed_plugins() -> dict[Path, metadata.Distribution | None]:
    """Directories of the packages of the entry points; none of them is imported."""
    found = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        package, *inner = entry.value.split(".")
        spec = importlib.util.find_spec(package)
        if spec is not None:
            for place in spec.submodule_search_locations or ():
                found[Path(place).joinpath(*inner).absolute()] = entry.dist
    return found


def plugin_configs() -> list[Path]:
    """The directories with YAML files that plugins bring: hydra_conf in each of them."""
    return [path for root in plugin_directories() if (path := root / "hydra_conf").is_dir()]


@cache
def check_plugins(roots: tuple[Path, ...]) -> None:
    """Sees that every plugin is there, and that none has a name that is taken.

    Raises:
        ConfigError: With everything that is wrong.
    """
    check_directories(roots)
    problems = taken_names(roots).values()
    if problems:
        raise ConfigError(problems)


def check_directories(roots: Iterable[Path]) -> None:
    """Sees that every plugin is there.

    Raises:
        ConfigError: With those that are not.
    """
    missing = [root for root in roots if not root.is_dir()]
    if missing:
        raise ConfigError(
            Problem(PLUGINS, f"{PLUGINS} names {root}, which is no directory.") for root in missing
        )


def taken_names(roots: Iterable[Path]) -> dict[Path, Problem]:
    """Files of plugins that have the name of one of ours, or of an earlier plugin."""
    problems = {}
    first_of: dict[Path, Path] = {}
    for root in (PACKAGE, *roots):
        configs = layout.HYDRA_CONF if root == PACKAGE else root / "hydra_conf"
        parts = [file for kind in KINDS for file in root.glob(f"{kind.replace('.', '/')}/*.py")]
        for base, files in ((root, parts), (configs, configs.glob("*/*.yaml"))):
            for file in files:
                first = first_of.setdefault(file.relative_to(base), file)
                if first != file and file.name != "__init__.py":
                    message = f"{file} has the name of {first}; rename the plugin's file."
                    problems[file] = Problem(str(file), message)
    return problems


def find_part(kind: Kind, name: str) -> Path | None:
    """The file of part ``name``: in gptopt itself, or in a plugin."""
    if kind == "optim" and library_of(name):
        return BRIDGE
    stem = name.replace("-", "_")
    if not stem.isidentifier():
        return None
    for root in [PACKAGE, *plugin_directories()]:
        file = root.joinpath(*kind.split("."), f"{stem}.py")
        # os.path: to pathlib a name that no file can have is an error
        if os.path.isfile(file) and "build" in functions(file):
            return file
    return None


def library_of(name: str) -> str | None:
    """``pytorch_optimizer`` of ``pytorch_optimizer.Lamb``; None for a name without a library."""
    library, dot, _ = name.partition(".")
    return library if dot and library in LIBRARIES else None


def is_installed(library: str) -> bool:
    """Whether ``library`` could be imported; it is not."""
    return importlib.util.find_spec(library) is not None


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
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        return importlib.import_module(".".join((PACKAGE.name, *parts)))
    module_name = f"gptopt_plugins.{kind}.{file.stem}"
    module = sys.modules.get(module_name)
    if module is None or module.__file__ != str(file):
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]  # half of it; the next import is to fail in the same way
            raise
    return module


@cache
def functions(file: Path) -> dict[str, ast.FunctionDef]:
    """The public functions at the top level of ``file``, by name."""
    body = _parsed(file).body
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    return {name: node for name, node in found.items() if not name.startswith("_")}


@cache
def has_width_rule(file: Path) -> bool:
    """Whether the optimizer in ``file`` defines or imports a ``width_rule``."""
    for node in _parsed(file).body:
        match node:
            case ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                found = [name]
            case ast.ImportFrom(names=aliases):
                found = [alias.asname or alias.name for alias in aliases]
            case _:
                found = []
        if WIDTH_RULE in found:
            return True
    return False


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
    try:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        place = f"{file}, line {error.lineno}"
        said = f"{error.msg}: {(error.text or '').strip()}".rstrip(": ")
        raise ConfigError([Problem("", said, place)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("", f"{error}.", str(file))]) from None
