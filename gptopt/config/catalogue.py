"""The optimizers there are, read from their YAML and Python files without importing them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gptopt import layout
from gptopt.config import resolve
from gptopt.config.plain import words
from gptopt.config.problems import ConfigError, Problem, nearest

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Plain gradients and signs": ("sgd", "lion", "signum"),
    "Adam and its variants": (
        "adam",
        "adamw",
        "nadamw",
        "adamh",
        "ademamix",
        "adopt",
        "cautious-adamw",
        "mars",
        "adafactor",
    ),
    "Without a schedule or a learning rate": (
        "schedule-free-adamw",
        "prodigy",
        "momo",
        "momo-adam",
    ),
    "Shampoo and its relatives": ("shampoo", "soap", "kron"),
    "Orthogonalised momentum": ("muon", "muonh", "normuon", "ns-nadam"),
    "Steepest descent under a norm": (
        "scion",
        "scion-momo",
        "muonmax",
        "muonmax-momo",
        "muon-momo",
    ),
    "Preconditioned by a layer's inputs": ("dap-ns-nadam", "dap-ns-nadam-accel", "newton-muon"),
}
"""By name; what is not listed stands under ``OTHERS``, and of a library under ``LIBRARIES``."""
OTHERS, LIBRARIES = "Others", "From other libraries"
CHOICE = re.compile(r"override\s+/?(?P<group>[\w/-]+)(?:@.*)?")
"""A key of a ``defaults`` list that chooses an option of another group."""


@dataclass(frozen=True)
class Entry:
    """One option of the group ``optimizer``.

    Attributes:
        option: As in ``optimizer=muon``.
        config: Its YAML file.
        params: The node optimizer_params in it, interpolations as written.
        part: Its Python file.
        selects: Other group -> the option that it brings along, as in ``lr_scheduler: constant``.
    """

    option: str
    config: Path
    params: dict[str, Any]
    part: Path
    selects: dict[str, str]

    @property
    def family(self) -> str:
        """The heading it stands under."""
        if resolve.library_of(self.params["name"]):
            return LIBRARIES
        found = (family for family, names in FAMILIES.items() if self.params["name"] in names)
        return next(found, OTHERS)

    @property
    def docstring(self) -> str:
        """Of the Python file: what it does, source, equations."""
        return ast.get_docstring(ast.parse(self.part.read_text(encoding="utf-8"))) or ""

    @property
    def header(self) -> str:
        """The comment at the top of the YAML file."""
        lines = self.config.read_text(encoding="utf-8").splitlines()
        return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))

    @property
    def selection(self) -> str:
        """What it brings along, as a sentence; empty where that is nothing."""
        words = " and ".join(f"{group}={option}" for group, option in self.selects.items())
        return f"Brings {words} along; an experiment or what you type wins." if words else ""

    @property
    def source(self) -> str:
        """Author and year of the paper, as far as the docstring or the YAML tells."""
        said = re.search(r"Source:\s*(.*?\(\d{4}\)|[^,;\n]*)", self.docstring, re.DOTALL)
        found = said or re.search(r"([A-Z][\w-]+ et al\. \(\d{4}\))", self.header)
        return " ".join(found[1].split()) if found else ""


@dataclass(frozen=True)
class Catalogue:
    """The optimizers there are.

    Attributes:
        entries: By option, in alphabetical order, those of plugins too.
        broken: File of a plugin that is left out -> what is wrong with it.
    """

    entries: dict[str, Entry]
    broken: dict[Path, Problem]

    def entry(self, option: str) -> Entry:
        """The optimizer called ``option``.

        Raises:
            ConfigError: There is none, or what is wrong with its YAML file.
        """
        if option in self.entries:
            return self.entries[option]
        wrong = [self.broken[file] for file in self.broken if is_optimizer(file, option)]
        message = f"there is no optimizer={option}.{nearest(option, self.entries)}"
        unknown = Problem("", f"{message} There are: {', '.join(self.entries)}.")
        raise ConfigError(wrong or [unknown])


def find() -> Catalogue:
    """Every optimizer with a YAML file; of plugins, those whose files are in order.

    Raises:
        ConfigError: A plugin is not there, or a YAML file of ours cannot be read.
    """
    roots = resolve.plugin_directories()
    resolve.check_directories(roots)
    taken = resolve.taken_names(roots)
    broken = dict(taken)
    entries = {}
    configs = [layout.HYDRA_CONF, *resolve.plugin_configs()]
    files = (file for root in configs for file in (root / "optimizer").glob("*.yaml"))
    for file in sorted((file for file in files if file not in taken), key=lambda file: file.stem):
        try:
            found = read(file)
        except ConfigError as error:
            if file.is_relative_to(layout.HYDRA_CONF):
                raise
            broken[file] = error.problems[0]
            continue
        meant = file.parents[2] / "optim" / found.part.name
        if meant in taken:  # ``found.part`` is another one
            broken[file] = taken[meant]
        else:
            entries[found.option] = found
    return Catalogue(entries, broken)


def is_optimizer(file: Path, option: str) -> bool:
    """Whether ``file`` is the YAML file of this option."""
    return file.suffix == ".yaml" and (file.parent.name, file.stem) == ("optimizer", option)


def read(file: Path) -> Entry:
    """The optimizer of one YAML file.

    Raises:
        ConfigError: It is no YAML, it has no node optimizer_params with a name, or that names no
            Python file that can be read.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            content = yaml.safe_load(stream)
    except yaml.YAMLError as error:  # names the file and the line
        raise ConfigError([Problem("", words(error))]) from None
    except (OSError, ValueError) as error:  # not UTF-8, or the 99th of a month
        raise ConfigError([Problem("", f"{error}.", str(file))]) from None
    params = content.get("optimizer_params") if isinstance(content, dict) else None
    name = params.get("name") if isinstance(params, dict) else None
    if not isinstance(params, dict) or not isinstance(name, str):
        message = "it has no optimizer_params with a name; docs/adding-an-optimizer.md shows one."
        raise ConfigError([Problem("", message, str(file))])
    part = resolve.find_part("optim", name)
    if part is None:
        wanted = f"optim/{name.replace('-', '_')}.py with a function `build`"
        roots = ", ".join(map(str, (resolve.PACKAGE, *resolve.plugin_directories())))
        raise ConfigError(
            [Problem("", f"name: {name}: there is no {wanted} in {roots}.", str(file))]
        )
    return Entry(file.stem, file, params, part, _choices(content.get("defaults")))


def _choices(defaults: Any) -> dict[str, str]:
    """Group -> option, of those that a ``defaults`` list overrides."""
    lines = defaults if isinstance(defaults, list) else []
    pairs = [pair for line in lines if isinstance(line, dict) for pair in line.items()]
    return {
        found["group"]: str(option)
        for key, option in pairs
        if (found := CHOICE.fullmatch(str(key)))
    }
