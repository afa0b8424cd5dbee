"""experiment=NAME repeats a published run: the published figures come out of the composition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim_toy import from_yaml

from gptopt.config import resolve
from gptopt.config.checks import choices_of
from gptopt.config.compose import compose
from gptopt.models import build_model

GPT_OPT = {"lr_scheduler.name": "constant_linear", "lr_scheduler.stable_fraction": 0.4,
           "lr_scheduler.min_lr_ratio": 0.1, "lr_scheduler.warmup_fraction": 0.0,
           "training.global_batch_size": 512, "training.context_length": 1024,
           "training.max_grad_norm": 1.0, "training.num_epochs": 1, "data.name": "fineweb1B",
           "model.name": "gpt-small", "weight_decay": 0.0}  # fmt: skip
WEN = {"training.max_tokens": 2_600_000_000, "training.global_batch_size": 128,
       "training.context_length": 4096, "training.max_grad_norm": 1.0}  # fmt: skip
SEMENOV = {"training.max_steps": 128_000, "training.global_batch_size": 256,
           "training.context_length": 512, "training.max_grad_norm": 0.5,
           "lr_scheduler.warmup_steps": 2000, "weight_decay": 0.1}  # fmt: skip
TRACK3 = {"training.global_batch_size": 512, "training.context_length": 1024,
          "training.max_grad_norm": None, "lr_scheduler.decay_fraction": 0.7}  # fmt: skip
TRACK3_AUX = {"aux.lr": 0.004, "aux.betas": [0.8, 0.95], "aux.eps": 1e-10, "aux.weight_decay": 1e-3}
COSINE_2000 = {"lr_scheduler.name": "cosine", "lr_scheduler.warmup_steps": 2000}
DECAY_80 = {"lr_scheduler.name": "wsd", "lr_scheduler.warmup_steps": 0,
            "lr_scheduler.decay_fraction": 0.8}  # fmt: skip
STEEPEST = {"lr": 0.01, "momentum": 0.95, "muon_lr_ratio": 1.0, "polar": "polar_express",
            "ns_steps": 5}  # fmt: skip
DAP = {"lr": 3e-4, "dap_beta1": 0.95, "dap_beta2": 0.999, "momentum": 0.0, "ns_pinv_steps": 50,
       "damping": 0.0, "nesterov": True, "rcond": 1e-3, "ema_beta": 0.0, "xtx_subsample": None,
       "update_norm": False, "update_opnorm": False, "aux.lr": 3e-4}  # fmt: skip

PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt-opt-adamw": {**GPT_OPT, "name": "adamw", "lr": 1e-3, "betas": [0.95, 0.95]},
    "gpt-opt-muon": {**GPT_OPT, "name": "muon", "lr": 0.01, "muon_lr_ratio": 1.0,
                     "momentum": 0.95, "nesterov": False, "scale": "none", "aux.lr": 0.01,
                     "aux.betas": [0.95, 0.95], "polar": "polar_express"},
    "gpt-opt-scion": {**GPT_OPT, **STEEPEST, "name": "scion"},
    "gpt-opt-muon-momo": {**GPT_OPT, **STEEPEST, "name": "scion-momo", "truncate_loss": 3.2},
    "gpt-opt-muonmax-momo": {**GPT_OPT, **STEEPEST, "name": "muonmax-momo", "truncate_loss": 3.2,
                             "beta2": 0.95},
    "gpt-opt-dap-ns-nadam": {**GPT_OPT, **DAP, "accelerated": 1e-3},
    "gpt-opt-dap-ns-nadam-accel": {**GPT_OPT, **DAP, "accelerated": True},
    "wen-130m-adamw": {**WEN, **COSINE_2000, "lr": 8e-3, "betas": [0.9, 0.98], "eps": 1e-20,
                       "weight_decay": 0.1},
    "wen-130m-nadamw": {**WEN, **COSINE_2000, "lr": 8e-3, "betas": [0.95, 0.98], "eps": 1e-25,
                        "weight_decay": 0.1},
    "wen-130m-lion": {**WEN, "lr": 2e-3, "betas": [0.9, 0.95], "weight_decay": 0.7},
    "wen-130m-mars": {**WEN, "lr": 1.6e-2, "betas": [0.9, 0.95], "gamma": 0.025},
    "wen-130m-cautious-adamw": {**WEN, "lr": 8e-3, "betas": [0.95, 0.98]},
    "wen-130m-muon": {**WEN, **DECAY_80, "lr": 0.016, "momentum": 0.95, "weight_decay": 0.1,
                      "aux.lr": 0.0032},
    "wen-130m-scion": {**WEN, **DECAY_80, "lr": 0.0016, "muon_lr_ratio": 10.0, "momentum": 0.95},
    "wen-130m-soap": {**WEN, "lr": 1.6e-2, "betas": [0.95, 0.98], "shampoo_beta": 0.95,
                      "precondition_interval": 1, "lr_scheduler.warmup_steps": 1000},
    "wen-130m-kron": {**WEN, "lr": 2e-3, "weight_decay": 0.7, "momentum": 0.95},
    "semenov-124m-adamw": {**SEMENOV, "lr": 1e-3, "betas": [0.8, 0.999]},
    "semenov-124m-lion": {**SEMENOV, "lr": 1e-3, "betas": [0.9, 0.99]},
    "semenov-124m-signum": {**SEMENOV, "lr": 1e-3},
    "semenov-124m-adopt": {**SEMENOV, "lr": 1e-3, "betas": [0.9, 0.999]},
    "semenov-124m-ademamix": {**SEMENOV, "lr": 1e-3, "betas": [0.9, 0.999, 0.999], "alpha": 8.0,
                              "ramp_steps": 128_000},
    "semenov-124m-mars": {**SEMENOV, "lr": 3e-3, "betas": [0.95, 0.99], "gamma": 0.025},
    "semenov-124m-prodigy": {**SEMENOV, "lr": 1.0, "betas": [0.9, 0.999], "bias_correction": True},
    "semenov-124m-soap": {**SEMENOV, "lr": 1e-3, "betas": [0.9, 0.999],
                          "precondition_interval": 10},
    "semenov-124m-muon": {**SEMENOV, "lr": 1e-3, "scale": "match_rms", "momentum": 0.95,
                          "aux.lr": 1e-3, "aux.betas": [0.8, 0.999], "aux.weight_decay": 0.1},
    "semenov-124m-schedule-free-adamw": {**SEMENOV, "lr": 1e-3, "betas": [0.9, 0.9999],
                                         "lr_scheduler.name": "constant"},
    "track3-adamw": {**TRACK3, "training.max_steps": 4950, "lr": 1e-3, "weight_decay": 1.0,
                     "betas": [0.9, 0.9]},
    "track3-muon": {**TRACK3, **TRACK3_AUX, "training.max_steps": 3250, "lr": 0.025,
                    "weight_decay": 0.05, "momentum": 0.95},
    "track3-normuon": {**TRACK3, **TRACK3_AUX, "training.max_steps": 3250, "lr": 0.035,
                       "weight_decay": 0.025, "beta2": 0.95},
    "track3-newton-muon": {**TRACK3, **TRACK3_AUX, "training.max_steps": 3275, "lr": 0.02,
                           "weight_decay": 0.025, "refresh_every": 64},
}  # fmt: skip
SETTINGS = ("gpt-opt", "wen-130m", "semenov-124m", "track3")


def value(config: Any, key: str) -> Any:
    """``lr`` is of optimizer_params, ``training.X`` of training_params, the rest as written."""
    group, _, rest = key.partition(".")
    if group == "training":
        return getattr(config.training.training_params, rest)
    if group == "model":
        return getattr(config.model, rest)
    if group in ("data", "lr_scheduler"):
        return getattr(config, group)[rest]
    node = config.optimizer.optimizer_params
    return node["aux"][rest] if group == "aux" else node[key]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures_come_out(name: str) -> None:
    config = compose([f"experiment={name}"])
    figures = PUBLISHED[name]
    assert {key: value(config, key) for key in figures} == figures


def test_every_preset_of_these_studies_has_its_figures_here() -> None:
    studies = tuple(f"{setting}-" for setting in SETTINGS)
    assert {name for name in choices_of("experiment") if name.startswith(studies)} == set(PUBLISHED)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_takes_any_optimizer_and_the_command_line_wins(setting: str) -> None:
    overrides = [f"experiment={setting}", "optimizer=lion", "lr_scheduler.warmup_steps=7"]
    config = compose(overrides)
    assert config.optimizer.optimizer_params["name"] == "lion"
    assert config.lr_scheduler["warmup_steps"] == 7


def test_the_models_have_the_size_that_their_papers_tell() -> None:
    # Blocks of 32 layers: 4 * 512^2 + 3 * 512 * 2048 in matrices. Track 3: 12 layers of
    # 4 * 768 * 768 + 2 * 768 * 3072 in matrices, and two tables of 50304 * 768: 163 million.
    matrices = {"wen-130m": 32 * (4 * 512**2 + 3 * 512 * 2048), "track3": 84_934_656}
    for name, expected in matrices.items():
        config = compose([f"model={name}"]).model
        with torch.device("meta"):
            model = build_model(config.family, config.config)
        roles = model.parameter_roles()
        sizes = {n: p.numel() for n, p in model.named_parameters()}
        assert sum(size for n, size in sizes.items() if roles[n] == "matrix") == expected
        if name == "track3":
            assert round(sum(sizes.values()) / 1e6) in (162, 163)


@pytest.mark.parametrize("option", choices_of("optimizer"))
def test_every_optimizer_composes(option: str) -> None:
    library = resolve.library_of(from_yaml(option)["name"])
    if library and not resolve.is_installed(library):
        pytest.skip(f"{library} is not installed")
    compose([f"optimizer={option}"])
