"""Real runs of a fraction of a second each: a sweep of two optimizers on data of known entropy.

By hand: ``python -m tests.results.realruns DIRECTORY``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gptopt
from tests.tiny import SETTINGS

STEPS = (12, 24, 48)
RATES = {"adamw": (0.003, 0.01, 0.03), "muon-momo": (0.003, 0.01, 0.03)}
MARKOV = (
    "data=markov",
    "data.tokens=20000",
    "data.symbols=16",
    "data.val_split=2000",
    "model.config.vocab_size=16",
    "logging.logging_params.diagnostics_interval=0.25",
    "logging.logging_params.eval_interval=0.25",
    "checkpoint.save_interval=null",
    "checkpoint.save_final=false",
)


def settings() -> list[tuple[str, ...]]:
    """Overrides of each run: three rates, two seeds at the middle one, three budgets."""
    runs = []
    for optimizer, rates in RATES.items():
        points = [(STEPS[1], lr, 0) for lr in rates] + [(STEPS[1], rates[1], 1)]
        points += [(steps, rates[1], 0) for steps in (STEPS[0], STEPS[2])]
        runs += [(optimizer, *point) for point in points]
    runs.append(("adamw", STEPS[1], 1e6, 0))  # diverges
    return [
        (
            f"optimizer={optimizer}",
            f"training.training_params.max_steps={steps}",
            f"optimizer.optimizer_params.lr={lr}",
            f"training.training_params.seed={seed}",
        )
        for optimizer, steps, lr, seed in runs
    ]


def write_real_sweep(root: Path) -> Path:
    """Trains them all below ``root``."""
    alike = [text for text in SETTINGS if not text.startswith("data")]
    for point in settings():
        overrides = [*alike, *MARKOV, *point, f"paths.output_dir={root}"]
        gptopt.train(gptopt.compose(overrides))
    return root


if __name__ == "__main__":
    write_real_sweep(Path(sys.argv[1]))
