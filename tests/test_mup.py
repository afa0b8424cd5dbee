"""muP: what a model, its learning rates and its training do as it gets wider."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tiny import stopped_at, tiny
from torch.nn import functional as F  # noqa: N812

import gptopt
from gptopt.config import catalogue, resolve
from gptopt.config.compose import compose
from gptopt.config.problems import ConfigError
from gptopt.config.types import Role
from gptopt.models import build_model
from gptopt.optim import build_optimizer
from gptopt.optim.checking.toy import ROLES, Toy

BASE = 32
WIDTHS = (32, 64, 128, 256)
SMALL = (
    "model.config.block_size=16",
    "model.config.n_layer=2",
    "model.config.init_std=0.1",
    "model.config.tie_embeddings=false",
)


def params_of(option: str, **settings: Any) -> dict[str, Any]:
    """The node optimizer_params of an option, with some values replaced."""
    overrides = [f"optimizer.optimizer_params.{key}={value}" for key, value in settings.items()]
    return compose([f"optimizer={option}", *overrides]).optimizer.optimizer_params


def built(width: int, base: int | None) -> Any:
    """A GPT with heads of 16 dimensions."""
    size = (f"model.config.n_embd={width}", f"model.config.n_head={width // 16}")
    mup = f"model.config.mup_base_n_embd={'null' if base is None else base}"
    torch.manual_seed(0)
    return build_model("gpt", compose([*SMALL, *size, mup]).model.config)


def outputs(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What embedding, attention, MLP and head give."""
    found: dict[str, torch.Tensor] = {}
    layers = {"tokens": model.tokens, "head": model.head}
    for i, block in enumerate(model.blocks):
        layers |= {f"attention {i}": block.attention, f"mlp {i}": block.mlp}
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def changes(
    params: dict[str, Any], model: Any, width: float | None, trained: tuple[str, ...]
) -> dict[str, float]:
    """The mean absolute change of each of ``outputs`` by three steps on one batch."""
    tokens = torch.randint(256, (8, 17), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    roles = model.parameter_roles()
    named = [(name, param) for name, param in model.named_parameters() if roles[name] in trained]
    optimizer = build_optimizer(params, named, roles, width)
    before = outputs(model, inputs)
    for _ in range(3):
        F.cross_entropy(model(inputs).flatten(0, 1), targets).backward()
        optimizer.step()
        model.zero_grad()
    after = outputs(model, inputs)
    return {name: (after[name] - before[name]).abs().mean().item() for name in before}


def growth(
    params: dict[str, Any],
    base: int | None,
    *,
    follows: bool = True,
    trained: tuple[str, ...] = get_args(Role),
) -> dict[str, float]:
    """By output the power of the width with which its change grows: a line through the logs."""
    models = [built(width, base) for width in WIDTHS]
    found = [changes(params, m, m.mup_width if follows else None, trained) for m in models]
    x = torch.tensor(WIDTHS).double().log()
    x = x - x.mean()
    moved = [name for name in found[0] if found[0][name] > 0]  # not by what is not trained
    logs = {name: torch.tensor([row[name] for row in found]).double().log() for name in moved}
    return {name: (x @ y / (x @ x)).item() for name, y in logs.items()}


# option and settings, with what says how lr follows the width
RULES = [
    # Yang, Hu et al. (2022), Table 8, Adam LR: 1 / fan_in for hidden weights, else 1
    ("adamw", {"lr": 0.003}),
    ("lion", {"lr": 0.001}),
    # the same table, SGD LR: 1 for hidden weights, fan_in or fan_out for the others
    ("sgd", {"lr": 0.1}),
    # Yang, Simon and Bernstein (2023): a spectral norm that does not depend on the width
    ("muon", {"scale": "original"}),
    ("muon", {"scale": "shape"}),
    ("muon", {"scale": "match_rms"}),
    ("muon", {"scale": "none"}),
    ("adafactor", {}),
    ("scion", {}),
]


@pytest.mark.parametrize(("option", "settings"), RULES, ids=str)
def test_under_mup_training_changes_a_layer_alike_at_every_width(option, settings):
    grown = growth(params_of(option, **settings), BASE)
    logits = grown.pop("head")
    assert max(map(abs, grown.values())) < 0.25
    # at first the head's rows are random, and what they read averages out: -1/2
    assert -0.7 < logits < 0.25


def test_without_mup_the_change_by_adamw_grows_with_the_width():
    grown = growth(params_of("adamw", lr=0.003), None)
    assert min(grown["attention 0"], grown["mlp 0"], grown["mlp 1"]) > 1
    assert grown["head"] > 0.4


@pytest.mark.parametrize(
    ("option", "settings", "grown_by"),
    [("adamw", {"lr": 0.003}, 0.5), ("muon", {"scale": "match_rms"}, 0.3)],
    ids=str,
)
def test_it_is_lr_that_keeps_hidden_matrices_from_changing_more(option, settings, grown_by):
    params, matrices = params_of(option, **settings), ("matrix",)
    with_rule = growth(params, BASE, trained=matrices)
    without = growth(params, BASE, trained=matrices, follows=False)
    for layer in ("attention 0", "mlp 0"):
        assert with_rule[layer] < 0.25
        assert without[layer] > grown_by


# option, settings, factor of the matrices' lr, and of the rest's, at four times the base
FACTORS = [
    ("adamw", {}, 0.25, 1),
    ("adam", {}, 0.25, 1),
    ("signum", {}, 0.25, 1),
    ("schedule-free-adamw", {}, 0.25, 1),
    ("mars", {}, 0.25, 1),
    ("sgd", {}, 1, 4),
    ("adafactor", {}, 0.5, 1),
    ("adamh", {}, 0.5, 1),
    ("muon", {"scale": "original"}, 1, 1),
    ("muon", {"scale": "shape"}, 1, 1),
    ("muon", {"scale": "none"}, 1, 1),
    ("muon", {"scale": "match_rms"}, 0.5, 1),
    ("normuon", {}, 1, 1),
    ("muonmax-momo", {}, 1, 1),
    ("shampoo", {"graft": "none"}, 1, 1),
    ("ns-nadam", {"update_norm": "shape", "betas": "[0.9,0]"}, 1, 1),
    ("ns-nadam", {"ns_steps": 0}, 0.25, 1),
    ("dap-ns-nadam-accel", {"update_opnorm": "true"}, 1, 1),
    ("dap-ns-nadam", {"orthogonalize": "true", "dap_beta2": 0}, 1, 1),
    ("dap-ns-nadam", {"disable_preconditioning": "true"}, 0.25, 1),
]


@pytest.mark.parametrize(("option", "settings", "matrices", "rest"), FACTORS, ids=str)
def test_the_lr_of_each_role_follows_the_width(option, settings, matrices, rest):
    params = params_of(option, **settings)
    plain = build_optimizer(params, Toy().named_parameters(), ROLES)
    wide = build_optimizer(params, Toy().named_parameters(), ROLES, 4.0)
    for before, after in zip(plain.table, wide.table, strict=True):
        factor = matrices if after["role"] == "matrix" else rest
        assert after == {**before, "lr": factor * before["lr"]}
    assert [group["initial_lr"] for group in wide.param_groups] == [
        group["lr"] for group in wide.param_groups
    ]


def test_every_optimizer_has_a_rule_but_those_of_which_none_is_known():
    without = {
        e.option for e in catalogue.find().entries.values() if not resolve.has_width_rule(e.part)
    }
    libraries = {"adan", "came", "lamb", "stable-adamw"}
    assert without == libraries | {"kron", "momo", "momo-adam", "muonh", "prodigy", "soap"}


@pytest.mark.parametrize("name", resolve.part_names("optim"))
def test_a_rule_that_is_read_is_one_that_is_imported(name):
    is_read = resolve.has_width_rule(resolve.find_part("optim", name))
    assert is_read == hasattr(resolve.load_part("optim", name), resolve.WIDTH_RULE)


def test_the_refusal_names_the_key_and_those_that_would_do():
    with pytest.raises(ConfigError) as error:
        compose(["optimizer=soap", "model.config.mup_base_n_embd=48"])
    assert (
        "model.config.mup_base_n_embd=48: how the lr of optimizer_params.name='soap' follows the"
        " width is not known. It takes null, or one of adafactor, adam," in str(error.value)
    )


UNKNOWN = [
    ("muon", {"cautious": "true"}, "cautious=false"),
    ("adam", {"weight_decay": 0.1}, "weight_decay=0"),
    ("shampoo", {}, "graft=none"),
    ("ns-nadam", {}, "update_norm=shape"),
    ("dap-ns-nadam", {}, "update_opnorm=true"),
    ("dap-ns-nadam-accel", {"orthogonalize": "true"}, "dap_beta2=0"),
]


@pytest.mark.parametrize(("option", "settings", "known"), UNKNOWN, ids=str)
def test_settings_with_an_unknown_rule_are_refused(option, settings, known):
    with pytest.raises(
        ConfigError, match=f"mup_base_n_embd: .* lr of optimizer {option} .*{known}"
    ):
        build_optimizer(params_of(option, **settings), Toy().named_parameters(), ROLES, 4.0)


@pytest.mark.parametrize("base", [0, -1, 48.5, "wide"])
def test_the_base_is_a_positive_whole_number(base):
    with pytest.raises(
        ConfigError, match=r"mup_base_n_embd=.*: it takes a whole number at least 1"
    ):
        compose([f"model.config.mup_base_n_embd={base}"])


def test_a_family_without_the_key_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bigram.py").write_text("def build(*, vocab_size: int): ...\n")
    node = tmp_path / "hydra_conf" / "model" / "bigram.yaml"
    node.parent.mkdir(parents=True)
    node.write_text("name: bigram\nfamily: bigram\nconfig:\n  vocab_size: 256\n")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(tmp_path))
    with pytest.raises(ConfigError, match="mup_base_n_embd"):
        compose(["model=bigram", "+model.config.mup_base_n_embd=48"])


def test_hidden_matrices_start_smaller_and_nothing_else_does():
    plain, wide = built(64, None), built(64, 16)
    hidden = {name for name, role in plain.parameter_roles().items() if role == "matrix"}
    for (name, before), after in zip(plain.named_parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(after, before / 2 if name in hidden else before)


def test_the_head_reads_a_smaller_state_and_attention_divides_by_the_width_of_a_head():
    tokens = torch.arange(16).unsqueeze(0)
    plain, wide = built(64, None), built(64, 16)
    wide.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for block in plain.blocks:
            block.attention.query.weight /= math.sqrt(16)  # of 16 dimensions: / sqrt(16) / 4
    torch.testing.assert_close(wide(tokens), plain(tokens) / 4)


def test_at_the_base_and_with_heads_of_one_dimension_mup_changes_nothing(tmp_path: Path):
    heads = ("model.config.n_head=32", "model.config.pos=none")
    curves = []
    for base in ("null", "32"):
        config = tiny(tmp_path / base, *heads, f"model.config.mup_base_n_embd={base}")
        curves.append(json.loads((gptopt.train(config).run / "completed.json").read_text()))
    assert curves[0]["weights"] == curves[1]["weights"]
    assert curves[0]["final"] == curves[1]["final"]


def test_a_run_with_mup_resumes_to_the_bit(tmp_path: Path):
    mup = ("model.config.mup_base_n_embd=8", "optimizer=adamw")
    whole = gptopt.train(tiny(tmp_path / "whole", *mup)).run
    parts = stopped_at(tiny(tmp_path / "parts", *mup), 9)
    gptopt.train(tiny(tmp_path / "parts", *mup))
    ends = [json.loads((run / "completed.json").read_text()) for run in (whole, parts)]
    assert ends[0]["weights"] == ends[1]["weights"]
    table = json.loads((whole / "run.json").read_text())["parameters"]["table"]
    factors = {(row["role"], row["lr"]) for row in table}
    assert factors == {("embedding", 0.001), ("vector", 0.001), ("matrix", 0.00025)}
