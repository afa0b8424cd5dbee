"""Logs of other programs -> run directories that ``load`` reads, so all analysis is one path.

gpt-opt        log.json of GPT-opt
modded-nanogpt text logs of modded-nanogpt, its optimization track included
nanogpt        what nanoGPT's train.py prints
wandb          history of Weights & Biases, exported as CSV, JSON or JSON lines
tensorboard    event files
"""

from gptopt.results.importers.write import FORMATS, import_runs

__all__ = ["FORMATS", "import_runs"]
