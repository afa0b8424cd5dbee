"""Which rule drives which parameter, and what is refused."""

from __future__ import annotations

import pytest
import torch
from optim_toy import PARAMETERS, ROLES, Toy, build, from_yaml

from gptopt.optim import build_optimizer


def test_muon_drives_the_matrices_and_aux_the_rest() -> None:
    aux = {"lr": 0.5, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.25}
    optimizer = build(from_yaml("muon", lr=0.125, weight_decay=0.75, aux=aux), Toy())
    rows = {row["name"]: row for row in optimizer.table}
    assert rows["tall"] == {
        "name": "tall",
        "shape": [12, 6],
        "role": "matrix",
        "rule": "muon",
        "lr": 0.125,
        "weight_decay": 0.75,
        "numel": 72,
    }
    for name, (role, _) in PARAMETERS.items():
        assert rows[name]["rule"] == ("muon" if role == "matrix" else "aux")
        assert rows[name]["lr"] == (0.125 if role == "matrix" else 0.5)
    assert rows["gain"]["weight_decay"] == 0.0
    assert rows["head"]["weight_decay"] == 0.25
    assert [type(rule).__name__ for rule in optimizer.rules] == ["Muon", "AdamW"]
    group = next(g for g in optimizer.param_groups if g["role"] == "head")
    assert (list(group["betas"]), group["eps"], group["initial_lr"]) == ([0.8, 0.9], 1e-6, 0.5)


@pytest.mark.parametrize("no_decay", [[], ["vector", "embedding"], ["matrix"]])
def test_no_decay_names_roles(no_decay: list[str]) -> None:
    model = Toy()
    optimizer = build(from_yaml("adamw", weight_decay=0.5, no_decay=no_decay), model)
    undecayed = {row["name"] for row in optimizer.table if row["weight_decay"] == 0}
    assert undecayed == {name for name, role in ROLES.items() if role in no_decay}


def test_each_role_of_each_rule_is_one_group() -> None:
    groups = build(from_yaml("muon"), Toy()).param_groups
    assert [(group["rule"], group["role"]) for group in groups] == [
        ("muon", "matrix"),
        ("aux", "embedding"),
        ("aux", "vector"),
        ("aux", "head"),
    ]


def test_aux_may_have_nothing_to_drive() -> None:
    model = Toy()
    matrices = {name: p for name, p in model.named_parameters() if ROLES[name] == "matrix"}
    optimizer = build_optimizer(from_yaml("muon"), matrices.items(), ROLES)
    assert {row["rule"] for row in optimizer.table} == {"muon"}


def test_a_model_without_matrices_is_refused() -> None:
    gain = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="muon drives matrices, and the model has none"):
        build_optimizer(from_yaml("muon"), [("gain", gain)], {"gain": "vector"})


@pytest.mark.parametrize("role", [None, "matrices"])
def test_a_parameter_without_a_known_role_is_refused(role: str | None) -> None:
    roles = ROLES | {"tall": role} if role else {n: r for n, r in ROLES.items() if n != "tall"}
    with pytest.raises(ValueError, match="tall .*matrix, embedding, head, vector"):
        build_optimizer(from_yaml("adamw"), Toy().named_parameters(), roles)


def test_an_unknown_optimizer_is_refused_with_a_list() -> None:
    with pytest.raises(ValueError, match="'moun'.*muon"):
        build(from_yaml("muon") | {"name": "moun"}, Toy())


def test_a_load_keeps_the_settings_of_aux() -> None:
    model = Toy()
    params = from_yaml("muon")
    optimizer = build(params | {"aux": params["aux"] | {"betas": [0.5, 0.5], "eps": 1e-3}}, model)
    optimizer.load_state_dict(build(params, model).state_dict())
    aux = [group for group in optimizer.param_groups if group["rule"] == "aux"]
    assert [(*group["betas"], group["eps"]) for group in aux] == [(0.5, 0.5, 1e-3)] * 3


def test_saved_state_is_by_name_and_in_the_shape_of_its_parameter() -> None:
    model = Toy()
    optimizer = build(from_yaml("muon"), model)
    model.set_gradients(0)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert set(state) == set(ROLES)
    for name, (role, shape) in PARAMETERS.items():
        key = "momentum_buffer" if role == "matrix" else "exp_avg"
        assert tuple(state[name][key].shape) == shape
    # B = 0.05 G after one step
    torch.testing.assert_close(state["square_2"]["momentum_buffer"], 0.05 * model.square_2.grad)
    torch.testing.assert_close(state["square_1"]["momentum_buffer"], 0.05 * model.square_1.grad)
