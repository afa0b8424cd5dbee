"""Schedules against values worked out by hand; the formula stands above each table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptopt.config import solver
from gptopt.config.checks import schedule_keys
from gptopt.layout import HYDRA_CONF
from gptopt.schedules import SCHEDULES, multiplier

FILES = sorted((HYDRA_CONF / "lr_scheduler").glob("*.yaml"))
COS_30, COS_45 = 0.86602540378443865, 0.70710678118654752  # sqrt(3) / 2, sqrt(2) / 2

WARMUP = {0: 0.1, 4: 0.5, 8: 0.9, 9: 1.0}  # (s + 1) / 10
RUN = {"max_steps": 110, "warmup_steps": 10}
WSD = {**RUN, "decay_steps": 40}  # stable until step 70, p = 1/4, 1/2, 3/4 at 80, 90, 100
STABLE = {**WARMUP, 10: 1.0, 69: 1.0, 70: 1.0}

GOLDEN: list[tuple[str, dict[str, Any], dict[int, float]]] = [
    ("constant", RUN, {**WARMUP, 10: 1, 50: 1, 109: 1, 200: 1}),
    # 0.2 + 0.8 (1 - p), p = (s - 10) / 100
    (
        "linear",
        {**RUN, "min_lr_ratio": 0.2},
        {**WARMUP, 10: 1, 35: 0.8, 60: 0.6, 85: 0.4, 109: 0.208, 110: 0.2, 500: 0.2},
    ),
    ("linear", {"max_steps": 4, "warmup_steps": 0, "min_lr_ratio": 0.0}, {0: 1, 1: 0.75, 3: 0.25}),
    # 0.1 + 0.9 (1 + cos(180 p)) / 2, p = (s - 10) / 120, so 30 degrees are 20 steps
    (
        "cosine",
        {"max_steps": 130, "warmup_steps": 10, "min_lr_ratio": 0.1},
        {**WARMUP, 10: 1, 50: 0.775, 70: 0.55, 90: 0.325, 130: 0.1, 500: 0.1}
        | {30: 0.55 + 0.45 * COS_30, 40: 0.55 + 0.45 * COS_45, 110: 0.55 - 0.45 * COS_30},
    ),
    # 1 - p
    (
        "wsd",
        {**WSD, "decay_shape": "linear", "min_lr_ratio": 0.0},
        {**STABLE, 80: 0.75, 90: 0.5, 100: 0.25, 109: 0.025, 110: 0, 500: 0},
    ),
    # 0.2 + 0.8 (1 - p)
    (
        "wsd",
        {**WSD, "decay_shape": "linear", "min_lr_ratio": 0.2},
        {**STABLE, 80: 0.8, 90: 0.6, 100: 0.4, 109: 0.22, 110: 0.2, 500: 0.2},
    ),
    # (1 + cos(180 p)) / 2
    (
        "wsd",
        {**WSD, "decay_shape": "cosine", "min_lr_ratio": 0.0},
        {**STABLE, 80: 0.5 + COS_45 / 2, 90: 0.5, 100: 0.5 - COS_45 / 2, 110: 0},
    ),
    # 2 (1 - p) - (1 + cos(180 p)) / 2
    (
        "wsd",
        {**WSD, "decay_shape": "mirror_cosine", "min_lr_ratio": 0.0},
        {**STABLE, 80: 1 - COS_45 / 2, 90: 0.5, 100: COS_45 / 2, 110: 0},
    ),
    # 1 - sqrt(p); sqrt(0.225) at 79
    (
        "wsd",
        {**WSD, "decay_shape": "sqrt", "min_lr_ratio": 0.0},
        {**STABLE, 79: 0.52565835097474309, 80: 0.5, 90: 1 - COS_45, 100: 1 - COS_30, 110: 0},
    ),
    # 1 - p^2; p = 0.975 at 109
    (
        "wsd",
        {**WSD, "decay_shape": "square", "min_lr_ratio": 0.0},
        {**STABLE, 80: 0.9375, 90: 0.75, 100: 0.4375, 109: 0.049375, 110: 0},
    ),
    # 0.0625^p
    (
        "wsd",
        {**WSD, "decay_shape": "exponential", "min_lr_ratio": 0.0625},
        {**STABLE, 80: 0.5, 90: 0.25, 100: 0.125, 110: 0.0625, 500: 0.0625},
    ),
    (
        "wsd",
        {**RUN, "decay_steps": 0, "decay_shape": "linear", "min_lr_ratio": 0.0},
        {**WARMUP, 50: 1, 109: 1, 110: 1},
    ),
    # sqrt(16 / (s + 1))
    (
        "inverse_sqrt",
        {"max_steps": 5000, "warmup_steps": 16, "min_lr_ratio": 0.1},
        {0: 0.0625, 7: 0.5, 15: 1, 24: 0.8, 63: 0.5, 99: 0.4, 399: 0.2, 1599: 0.1, 4999: 0.1},
    ),
    # 1 / sqrt(s + 1)
    (
        "inverse_sqrt",
        {"max_steps": 5000, "warmup_steps": 0, "min_lr_ratio": 0.0},
        {0: 1, 3: 0.5, 24: 0.2, 99: 0.1, 399: 0.05, 2499: 0.02},
    ),
    # 0.25^((s - 10) / 20)
    (
        "exponential",
        {**RUN, "decay_rate": 0.25, "decay_interval": 20, "min_lr_ratio": 0.01},
        {**WARMUP, 10: 1, 20: 0.5, 30: 0.25, 40: 0.125, 50: 0.0625, 109: 0.01, 500: 0.01},
    ),
    # max(0.1, 1 - (s - 44) / 66): GPT-opt's constant-linear .4 of 110 steps
    (
        "constant_linear",
        {"max_steps": 110, "warmup_steps": 0, "stable_steps": 44, "min_lr_ratio": 0.1},
        {0: 1, 43: 1, 44: 1, 77: 0.5, 88: 1 / 3, 103: 7 / 66, 104: 0.1, 109: 0.1, 110: 0.1},
    ),
    # 10 / (s + 1)
    (
        "inverse_time",
        {**RUN, "min_lr_ratio": 0.1},
        {**WARMUP, 19: 0.5, 39: 0.25, 99: 0.1, 109: 0.1},
    ),
    # 1 / (s + 1)
    ("inverse_time", {"max_steps": 9, "warmup_steps": 0, "min_lr_ratio": 0.0}, {0: 1, 3: 0.25}),
    # 0.5^floor((s - 10) / 20)
    (
        "stairs",
        {**RUN, "decay_rate": 0.5, "decay_interval": 20, "min_lr_ratio": 0.1},
        {**WARMUP, 10: 1, 29: 1, 30: 0.5, 49: 0.5, 50: 0.25, 70: 0.125, 90: 0.1, 109: 0.1},
    ),
]


@pytest.mark.parametrize(("name", "keys", "values"), GOLDEN)
def test_golden_values(name: str, keys: dict[str, Any], values: dict[int, float]) -> None:
    schedule = multiplier(name, **keys)
    assert {step: schedule(step) for step in values} == pytest.approx(values, rel=1e-12, abs=1e-15)


def test_every_schedule_and_decay_shape_has_golden_values() -> None:
    assert {name for name, _, _ in GOLDEN} == SCHEDULES.keys()
    shapes = {keys["decay_shape"] for name, keys, _ in GOLDEN if name == "wsd"}
    annotation = schedule_keys("wsd")["decay_shape"]
    assert shapes == set(annotation.__args__)


def test_every_schedule_has_a_yaml_file() -> None:
    assert [file.stem for file in FILES] == sorted(SCHEDULES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_yaml_lists_exactly_the_keys_of_its_function(file: Path) -> None:
    keys = OmegaConf.to_container(OmegaConf.load(file))
    assert keys["name"] == file.stem
    assert keys.keys() == schedule_keys(file.stem).keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_yaml_as_it_stands_rises_to_lr_and_never_leaves_zero_to_one(file: Path) -> None:
    keys = OmegaConf.to_container(OmegaConf.load(file))
    schedule = multiplier(file.stem, 200, **solver.solve_schedule(keys, 200))
    values = [schedule(step) for step in range(200)]
    assert values[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert values[9:] == sorted(values[9:], reverse=True)
    assert min(values) > 0  # no update is lost to a learning rate of 0
    assert max(values) == 1
