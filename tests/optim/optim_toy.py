"""What the tests of this folder share: the optimizers there are, and a small model for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from gptopt.config.resolve import find_part
from gptopt.layout import HYDRA_CONF, PROJECT
from gptopt.optim import RoutedOptimizer, build_optimizer

DOCS = PROJECT / "docs" / "adding-an-optimizer.md"

PARAMETERS = {  # name: (role, shape); every role, wide, tall and equal shapes
    "embedding": ("embedding", (11, 6)),
    "wide": ("matrix", (6, 12)),
    "square_1": ("matrix", (6, 6)),
    "square_2": ("matrix", (6, 6)),
    "tall": ("matrix", (12, 6)),
    "row": ("matrix", (1, 6)),
    "gain": ("vector", (6,)),
    "bias": ("vector", (6,)),
    "head": ("head", (11, 6)),
}
ROLES = {name: role for name, (role, _) in PARAMETERS.items()}


class Toy(torch.nn.Module):
    """Normal weights, and for each a target somewhere else.

    Each matrix also is the weight of a layer, for optimizers that look at what enters it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        numbers = torch.Generator().manual_seed(0)
        self.target = {}
        for name, (_, shape) in PARAMETERS.items():
            weight = torch.randn(shape, generator=numbers)
            self.register_parameter(name, torch.nn.Parameter(weight))
            self.target[name] = weight + 2 * torch.randn(shape, generator=numbers).sign()
            if ROLES[name] == "matrix":
                self.layers[name] = torch.nn.Linear(shape[1], shape[0], bias=False)
                self.layers[name].weight = getattr(self, name)

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all weights."""
        return {name: param.detach().clone() for name, param in self.named_parameters()}

    def losses(self) -> dict[str, float]:
        """|W - target|^2 / 2 of each weight."""
        weights = self.named_parameters()
        return {name: (w - self.target[name]).square().sum().item() / 2 for name, w in weights}

    def set_gradients(self, step: int, without: Iterable[str] = ()) -> None:
        """The slopes of the losses, plus noise that is the same at the same step.

        Layers see inputs that are the same at the same step.
        """
        noise = torch.Generator().manual_seed(step)
        for name, param in self.named_parameters():
            slope = param.detach() - self.target[name]
            slope += 0.1 * torch.randn(param.shape, generator=noise)
            param.grad = None if name in without else slope
        for layer in self.layers.values():
            layer(torch.randn(32, layer.in_features, generator=noise))


def read_params(file: Path) -> dict[str, Any]:
    """The node optimizer_params of an optimizer's YAML file, as plain values."""
    return OmegaConf.to_container(OmegaConf.load(file).optimizer_params, resolve=True)


def from_yaml(name: str, **changes: Any) -> dict[str, Any]:
    """What hydra_conf/optimizer/<name>.yaml says, with some values replaced."""
    params = read_params(HYDRA_CONF / "optimizer" / f"{name}.yaml")
    assert changes.keys() <= params.keys()
    return params | changes


def runnable() -> list[str]:
    """Every optimizer with a YAML file whose Python file exists."""
    files = sorted((HYDRA_CONF / "optimizer").glob("*.yaml"))
    return [file.stem for file in files if find_part("optim", read_params(file)["name"])]


def build(
    params: dict[str, Any], model: torch.nn.Module, names: Iterable[str] | None = None
) -> RoutedOptimizer:
    """The optimizer of all parameters of ``model``, or of those named."""
    named = model.named_parameters()
    if names is not None:
        named = ((name, getattr(model, name)) for name in names)
    optimizer = build_optimizer(params, named, ROLES)
    optimizer.attach(model)
    return optimizer


def take_step(model: Toy, optimizer: RoutedOptimizer) -> None:
    """Updates the weights as a training loop does, once the gradients are there."""
    optimizer.observe(torch.tensor(sum(model.losses().values())))
    optimizer.step()
    optimizer.forget()


def write_docs_example(directory: Path) -> list[Path]:
    """Writes the files of docs/adding-an-optimizer.md below ``directory``."""
    blocks = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    files = []
    for name, text in blocks:
        files.append(directory / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(text, encoding="utf-8")
    return files
