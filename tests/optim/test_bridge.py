"""Optimizers of other libraries. Where the library is there they also keep the contract."""

from __future__ import annotations

import sys

import pytest
import torch
from optim_toy import ROLES, Toy, build, from_yaml, take_step

from gptopt.config import resolve
from gptopt.config.compose import compose
from gptopt.config.problems import ConfigError
from gptopt.layout import HYDRA_CONF
from gptopt.optim import build_optimizer
from gptopt.optim.common import bridge

SHIPPED = [
    file.stem
    for file in sorted((HYDRA_CONF / "optimizer").glob("*.yaml"))
    if resolve.library_of(from_yaml(file.stem)["name"])
]
ROLE_ORDER = list(dict.fromkeys(ROLES.values()))
needs_library = pytest.mark.skipif(
    not resolve.is_installed("pytorch_optimizer"), reason="pytorch_optimizer is not installed"
)


def test_some_are_shipped() -> None:
    assert len(SHIPPED) >= 2


@needs_library
@pytest.mark.parametrize("option", SHIPPED)
def test_a_shipped_yaml_lists_every_setting_of_its_class(option: str) -> None:
    params = from_yaml(option)
    assert params["settings"].keys() == bridge.settings_of(params["name"]).keys()


@needs_library
@pytest.mark.parametrize("option", SHIPPED)
def test_the_update_is_that_of_the_library_used_by_itself(option: str) -> None:
    params = from_yaml(option, no_decay=[])
    ours, theirs = Toy(), Toy()
    bridged = build(params, ours)
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in params["settings"].items()}
    kind = bridge.library_class(params["name"])
    by_role = [[p for n, p in theirs.named_parameters() if ROLES[n] == r] for r in ROLE_ORDER]
    groups = [{"params": role} for role in by_role]
    alone = kind(groups, lr=params["lr"], weight_decay=params["weight_decay"], **own)
    for step in range(6):
        for model in (ours, theirs):
            model.set_gradients(step)
        take_step(ours, bridged)
        alone.step()
    assert ours.differs_from(theirs) == []
    assert len(ours.differs_from(Toy())) == len(ROLES)


@needs_library
def test_only_matrices_go_to_a_bridged_optimizer_with_aux() -> None:
    aux = from_yaml("muon")["aux"]
    optimizer = build({**from_yaml("lamb"), "aux": aux}, Toy())
    rules = {row["role"]: row["rule"] for row in optimizer.table}
    assert rules == dict.fromkeys(("embedding", "vector", "head"), "aux") | {
        "matrix": "pytorch_optimizer.Lamb"
    }


@needs_library
def test_a_misspelt_setting_is_answered_with_the_nearest() -> None:
    params = from_yaml("lamb")
    params["settings"]["betass"] = params["settings"].pop("betas")
    with pytest.raises(ValueError, match=r"takes no 'betass'. Did you mean 'betas'\?"):
        build(params, Toy())


@needs_library
def test_a_misspelt_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no optimizer 'Lam'. Did you mean 'La"):
        bridge.library_class("pytorch_optimizer.Lam")


def test_a_missing_library_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "is_installed", lambda library: False)
    with pytest.raises(ConfigError, match=r"pytorch_optimizer is not installed; pip install"):
        compose(["optimizer=lamb"])
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ValueError, match="pytorch_optimizer is not installed"):
        bridge.library_class("pytorch_optimizer.Lamb")


@pytest.mark.skipif(not resolve.is_installed("schedulefree"), reason="it is not installed")
def test_schedule_free_evaluates_its_average_and_trains_on() -> None:
    # x_1 = z_1 and y = (1 - b1) z + b1 x, so after one step y = x = z; after the second
    # x_2 = (z_1 + z_2) / 2, which is not y = 0.1 z_2 + 0.9 x_2.
    name = "schedulefree.SGDScheduleFree"
    params = {"name": name, "lr": 0.1, "settings": {}, "weight_decay": 0.0, "no_decay": []}
    weight = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    z1, z2 = -0.1, -0.2
    assert optimizer.has_eval_weights
    assert weight.item() == pytest.approx(0.1 * z2 + 0.9 * (z1 + z2) / 2)
    with optimizer.eval_weights():
        assert weight.item() == pytest.approx((z1 + z2) / 2)
    assert weight.item() == pytest.approx(0.1 * z2 + 0.9 * (z1 + z2) / 2)
