"""Draws the figures of optimizers.md: ``python docs/figures.py outputs``.

Of each family: final validation loss against the learning rate, beside the baseline. The runs are
those of params/muon.json, dap.json and families.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

import catalogue

from gptopt.results import load
from gptopt.results.plots import final_loss
from gptopt.results.stats import BASELINE


def main(*paths: str) -> None:
    """Writes a file for each family with runs below ``paths``."""
    runs = load([Path(path) for path in paths])
    catalogue.FIGURES.mkdir(exist_ok=True)
    for name, entries in catalogue.families().items():
        members = {entry.params["name"] for entry in entries}  # pytorch_optimizer.Lamb, not lamb
        if members & set(runs.runs["optimizer"]):
            shown = runs.only(runs.runs["optimizer"].isin(members | {BASELINE}))
            path = catalogue.FIGURES / f"{catalogue.anchor(name)}.png"
            final_loss(shown).figure.savefig(path, dpi=110)
            print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
