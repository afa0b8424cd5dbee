"""Times optimizer steps on the matrices of GPT-2 small against torch's, interleaved.

    OMP_NUM_THREADS=1 python benchmarks/optimizer_step.py [--layers 3] [--rounds 7]

Every round runs each row once, in turn, so what else the machine does hits all alike. CPU
seconds of this process; the median over rounds, and of the ratios within a round. Beside them
the error of the polar factor, relative to the same polynomials in float64, on an isotropic
matrix, one whose singular values fall like 1 / k, one near low rank, and two with a single
singular value above noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import yaml

from gptopt.layout import HYDRA_CONF
from gptopt.optim import build_optimizer
from gptopt.optim.common import linalg
from gptopt.optim.common.linalg import polar

WIDTH = 768
LAYER = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
"""As in GPT-2, which has queries, keys and values in one matrix."""


def parameters(layers: int) -> dict[str, torch.nn.Parameter]:
    """The hidden matrices with gradients; the same numbers in each call."""
    numbers = torch.Generator().manual_seed(0)
    found = {}
    for number, shape in enumerate(LAYER * layers):
        found[str(number)] = torch.nn.Parameter(0.02 * torch.randn(shape, generator=numbers))
        found[str(number)].grad = torch.randn(shape, generator=numbers)
    return found


def ours(layers: int, name: str, **changes: Any) -> Callable[[], None]:
    """A step of gptopt's optimizer ``name``."""
    text = (HYDRA_CONF / "optimizer" / f"{name}.yaml").read_text(encoding="utf-8")
    params = yaml.safe_load(text)["optimizer_params"] | changes
    weights = parameters(layers)
    optimizer = build_optimizer(params, weights.items(), dict.fromkeys(weights, "matrix"))

    def step() -> None:
        optimizer.observe(torch.tensor(10.0))
        optimizer.step()

    return step


def torchs(layers: int, kind: Any, **settings: Any) -> Callable[[], None]:
    """A step of torch's optimizer ``kind``."""
    return kind(list(parameters(layers).values()), **settings).step


def plain(step: Callable[[], None]) -> Callable[[], None]:
    """``step`` by plain Newton-Schulz: neither Gram matrices nor strips."""

    def run() -> None:
        kept, linalg.GRAM_FROM = linalg.GRAM_FROM, 10**9
        step()
        linalg.GRAM_FROM = kept

    return run


def time_steps(layers: int, rounds: int) -> None:
    """Prints seconds and ratios."""
    muon = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    rows: dict[str, tuple[Callable[[], None], str]] = {
        "torch Muon": (torchs(layers, torch.optim.Muon, **muon), "torch Muon"),
        "muon": (ours(layers, "muon"), "torch Muon"),
        "muon, polar_express": (ours(layers, "muon", polar="polar_express"), "torch Muon"),
        "muonmax": (ours(layers, "muonmax"), "muon, polar_express"),
        "muonmax-momo": (ours(layers, "muonmax-momo"), "muon, polar_express"),
        "plain float32": (plain(ours(layers, "muon", ns_dtype="float32")), "plain float32"),
        "muon, float32": (ours(layers, "muon", ns_dtype="float32"), "plain float32"),
        "torch AdamW, fused": (torchs(layers, torch.optim.AdamW, fused=True), "torch AdamW, fused"),
        "adamw": (ours(layers, "adamw"), "torch AdamW, fused"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):  # the first round makes the state and is not counted
        for name, (step, _) in rows.items():
            began = time.process_time()
            step()
            if number:
                seconds[name].append(time.process_time() - began)
    for name, (_, base) in rows.items():
        ratio = statistics.median(
            mine / other for mine, other in zip(seconds[name], seconds[base], strict=True)
        )
        print(f"{name:20} {statistics.median(seconds[name]):7.3f} s  {ratio:5.2f} of {base}")


def compare_errors() -> None:
    """Prints relative errors of bfloat16 polar factors: plain and as they are computed."""
    numbers = torch.Generator().manual_seed(0)
    m, n = WIDTH, 4 * WIDTH
    noise = torch.randn(m, n, generator=numbers, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(n, n, generator=numbers, dtype=torch.float64)).Q
    low = noise[:, : m // 8] @ torch.randn(m // 8, n, generator=numbers, dtype=torch.float64)
    spike = noise[:, :1].roll(1, 0) @ noise[:1].roll(1, 1)
    matrices = {
        "isotropic": noise,
        "falling": noise / torch.arange(1, n + 1, dtype=torch.float64) @ turn,
        "near low rank": low + 0.1 * noise,
        "noise and u v": noise + spike,
        "noise and 3 u v": noise + 3 * spike,
    }
    for kind, matrix in matrices.items():
        for method in ("newton_schulz", "polar_express"):
            exact = polar(matrix, method=method, steps=5, dtype=torch.float64)
            errors = []
            for rows in (10**9, linalg.GRAM_FROM):
                kept, linalg.GRAM_FROM = linalg.GRAM_FROM, rows
                rounded = polar(matrix, method=method, steps=5, dtype=torch.bfloat16)
                linalg.GRAM_FROM = kept
                errors.append(((rounded - exact).norm() / exact.norm()).item())
            print(f"{kind:15} {method:14} plain {errors[0]:.4f}, ours {errors[1]:.4f}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    time_steps(given.layers, given.rounds)
    compare_errors()


if __name__ == "__main__":
    main()
