"""Diagnostics against numpy's SVD in float64; that they disturb nothing, and reach the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import marker, result, tiny

import gptopt
from gptopt import diagnostics, layout
from gptopt.diagnostics import StepDiagnostics
from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.results import load
from gptopt.tracking import follow

EVERY = "logging.logging_params.diagnostics_interval={}"
SHAPES = {"wide": (12, 30), "twin": (12, 30), "tall": (30, 12), "gain": (7,), "table": (20, 12)}
ROLES = {"wide": "matrix", "twin": "matrix", "tall": "matrix", "gain": "vector"}


def normal(seed: int) -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    found = {n: torch.randn(s, generator=numbers, dtype=torch.float64) for n, s in SHAPES.items()}
    for name in ("wide", "tall"):  # a gap behind the largest: power iteration gets there
        u, s, vh = torch.linalg.svd(found[name], full_matrices=False)
        found[name] = u * torch.cat([2 * s[:1], s[1:]]) @ vh
    return found


def sgd(**changes: Any) -> tuple[dict[str, torch.nn.Parameter], RoutedOptimizer]:
    params = {"name": "sgd", "lr": 0.3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    weights = {name: torch.nn.Parameter(w) for name, w in normal(0).items()}
    roles = {**ROLES, "table": "embedding"}
    return weights, build_optimizer({**params, "no_decay": [], **changes}, weights.items(), roles)


def measured(
    weights: dict[str, torch.nn.Parameter], optimizer: RoutedOptimizer
) -> dict[str, float]:
    for name, grad in normal(1).items():
        weights[name].grad = grad
    watched = StepDiagnostics(optimizer)
    optimizer.step()
    return watched.measure()


def angle(a: np.ndarray, b: np.ndarray) -> float:
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@pytest.mark.parametrize("weight_decay", [0.0, 0.7])
def test_every_number_is_that_of_the_svd(weight_decay: float) -> None:
    found = measured(*sgd(weight_decay=weight_decay))
    for name in SHAPES:
        w, g = normal(0)[name].numpy(), normal(1)[name].numpy()
        u = -0.3 * (g + weight_decay * w)
        expected = {
            "weight_rms": np.sqrt(np.mean((w + u) ** 2)),
            "update_rms": np.sqrt(np.mean(u**2)),
            "relative_update": np.linalg.norm(u) / np.linalg.norm(w),
            "update_angle_deg": angle(u, -g),
        }
        if name in ("wide", "tall"):
            for kind, matrix in (("weight", w + u), ("update", u)):
                s = np.linalg.svd(matrix, compute_uv=False)
                expected[f"{kind}_spectral_norm"] = s[0]
                expected[f"{kind}_stable_rank"] = (s**2).sum() / s[0] ** 2
            square = np.linalg.svd(u, compute_uv=False) ** 2
            expected["update_orthogonality"] = np.std(square) / np.mean(square)
        for key, value in expected.items():
            # Power iteration: (s2 / s1)^64 of the way is left. acos near 1: root of rounding.
            limit = {"abs": 1e-5} if key == "update_angle_deg" else {"rel": 1e-3}
            assert found[f"{name}/{key}"] == pytest.approx(value, **limit), (name, key)
    assert "table/update_spectral_norm" not in found  # embeddings and vectors have the first four


def test_the_spectral_norm_without_a_gap_is_two_percent_too_small_at_most() -> None:
    found = measured(*sgd())
    exact = 0.3 * np.linalg.svd(normal(1)["twin"].numpy(), compute_uv=False)[0]
    assert 0.98 * exact < found["twin/update_spectral_norm"] <= exact * (1 + 1e-12)


def test_the_summary_is_over_the_matrices() -> None:
    found = measured(*sgd())
    sizes = [found[f"{name}/update_rms"] for name in ("wide", "twin", "tall")]
    assert [found[f"{word}/update_rms"] for word in ("min", "median", "max")] == sorted(sizes)


@pytest.mark.parametrize(("m", "n"), [(8, 8), (5, 14), (14, 5), (1, 6)])
def test_orthogonality_is_zero_for_scaled_polar_factors_and_largest_for_rank_one(
    m: int, n: int
) -> None:
    numbers = torch.Generator().manual_seed(0)
    matrix = torch.randn(1, m, n, generator=numbers, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert diagnostics.orthogonality(1e-3 * u @ vh).item() < 1e-14
    rank_one = u[..., :1] * s[..., :1] @ vh[..., :1, :]
    expected = (min(m, n) - 1) ** 0.5
    assert diagnostics.orthogonality(rank_one).item() == pytest.approx(expected, abs=1e-12)


def test_a_step_that_moves_nothing_gives_finite_numbers() -> None:
    weights, optimizer = sgd()
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    watched = StepDiagnostics(optimizer)
    optimizer.step()
    found = watched.measure()
    assert np.isfinite(list(found.values())).all()
    assert found["wide/update_angle_deg"] == pytest.approx(90)


# --- in a run ----------------------------------------------------------------------------------


def logged(run: Path, event: str = "diagnostics") -> list[dict[str, Any]]:
    lines = layout.metrics_file(run, 1).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


@pytest.mark.parametrize(
    "settings",
    [
        ("adamw",),
        ("muonmax-momo", "truncate_loss=1.0"),
        ("dap-ns-nadam", "refresh_every=5"),  # watched between two refreshes
        ("newton-muon", "ema_beta=0.5"),
        ("schedule-free-adamw",),
    ],
    ids=lambda settings: settings[0],
)
def test_a_run_is_the_same_to_the_bit_with_and_without(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    name, *changes = settings
    overrides = [f"optimizer={name}", *(f"optimizer.optimizer_params.{c}" for c in changes)]
    off = gptopt.train(tiny(tmp_path / "off", *overrides)).run
    on = gptopt.train(tiny(tmp_path / "on", *overrides, EVERY.format(4))).run
    assert result(on) == result(off)
    assert logged(off) == []
    assert [row["step"] for row in logged(on)] == [4, 8, 12, 16, 20, 24]


def test_nothing_is_watched_while_they_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(RoutedOptimizer, "watch_step", refuse)
    monkeypatch.setattr(RoutedOptimizer, "diagnostics", refuse)
    monkeypatch.setattr("gptopt.training.StepDiagnostics", refuse)
    assert marker(gptopt.train(tiny(tmp_path)).run)


def test_momo_tells_its_step(tmp_path: Path) -> None:
    momo = ["optimizer=muonmax-momo", "optimizer.optimizer_params.truncate_loss=4.5"]
    run = gptopt.train(tiny(tmp_path, *momo, EVERY.format(1))).run
    shares = [row["muonmax-momo/step_share"] for row in logged(run)]
    for row, share, train in zip(logged(run), shares, logged(run, "train"), strict=True):
        assert row["muonmax-momo/step_size"] == pytest.approx(share * train["lr"])
    assert min(shares) < 1
    assert max(shares) == 1


def test_dap_tells_how_its_inverse_fits() -> None:
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=numbers, dtype=torch.float64) * torch.linspace(0.2, 3, 6)
    model = torch.nn.Linear(6, 4, bias=False, dtype=torch.float64)
    text = (layout.HYDRA_CONF / "optimizer/dap-ns-nadam.yaml").read_text()
    params = yaml.safe_load(text)["optimizer_params"] | {"accelerated": True}
    optimizer = build_optimizer(params, [("weight", model.weight)], {"weight": "matrix"})
    optimizer.attach(model)
    model(x).square().mean().backward()
    optimizer.step()
    found = optimizer.diagnostics()["weight"]
    eigenvalues = np.linalg.eigvalsh((x.T @ x / 64).numpy())
    # power iterations see 1 to 2 % less; the iteration ends at a residual of 1e-6
    assert float(found["input_condition"]) == pytest.approx(eigenvalues[-1] / eigenvalues[0], 0.03)
    assert float(found["pinv_residual"]) < 1e-6


def test_a_kept_inverse_is_held_against_the_inputs_of_now(tmp_path: Path) -> None:
    dap = ["optimizer=dap-ns-nadam", "optimizer.optimizer_params.refresh_every=20"]
    run = gptopt.train(tiny(tmp_path, *dap, EVERY.format(1))).run
    residual = [row["blocks.0.mlp.up.weight/pinv_residual"] for row in logged(run)]
    fresh, kept = [residual[0], residual[20]], [*residual[1:20], *residual[21:]]
    assert max(fresh) < min(kept)


def test_the_reader_and_a_tracker_get_them_by_layer(tmp_path: Path) -> None:
    run = gptopt.train(tiny(tmp_path, EVERY.format(0.5))).run
    row = logged(run)[0]
    name = "blocks.0.mlp.up.weight/update_rms"
    table = load(tmp_path).diagnostics
    read = table[(table["step"] == 12) & (table["name"] == name)]["value"].tolist()
    assert read == [row[name]]

    class Tracker:
        rows: list[dict[str, float]] = []

        def log(self, row: dict[str, float]) -> None:
            self.rows.append(row)

    follow._pass_on(row, Tracker())
    assert Tracker.rows[0]["step"] == 12
    assert Tracker.rows[0][f"diagnostics/{name}"] == row[name]
