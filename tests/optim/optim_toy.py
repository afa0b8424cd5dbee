"""What the tests of this folder share: the optimizers there are, and the toy model for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gptopt.config.resolve import find_part, is_installed, library_of
from gptopt.layout import HYDRA_CONF, PROJECT
from gptopt.optim.checking.toy import PARAMETERS, ROLES, Toy, take_step
from gptopt.optim.checking.toy import optimizer_of as build

__all__ = ["PARAMETERS", "ROLES", "Toy", "build", "take_step"]

DOCS = PROJECT / "docs" / "adding-an-optimizer.md"


def read_params(file: Path) -> dict[str, Any]:
    """The node optimizer_params of an optimizer's YAML file, as plain values."""
    return OmegaConf.to_container(OmegaConf.load(file).optimizer_params, resolve=True)


def from_yaml(name: str, **changes: Any) -> dict[str, Any]:
    """What hydra_conf/optimizer/<name>.yaml says, with some values replaced."""
    params = read_params(HYDRA_CONF / "optimizer" / f"{name}.yaml")
    assert changes.keys() <= params.keys()
    return params | changes


def runnable() -> list[str]:
    """Every optimizer with a YAML file whose Python file, and library, is there."""
    files = sorted((HYDRA_CONF / "optimizer").glob("*.yaml"))
    names = {file.stem: read_params(file)["name"] for file in files}
    return [option for option, name in names.items() if find_part("optim", name) and _has(name)]


def _has(name: str) -> bool:
    library = library_of(name)
    return library is None or is_installed(library)


def write_docs_example(directory: Path) -> list[Path]:
    """Writes the files of docs/adding-an-optimizer.md below ``directory``."""
    blocks = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    files = []
    for name, text in blocks:
        files.append(directory / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(text, encoding="utf-8")
    return files
