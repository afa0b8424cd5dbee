"""The command ``gptopt``: thin, and quick to answer, since every import waits until it is needed.

Exit codes: 0 done, 1 runs failed or a back end refused, 2 bad configuration or usage,
65 bad data, 75 stopped before the end (the same command goes on).
"""

from __future__ import annotations

import click

from gptopt.cli.data import data
from gptopt.cli.optim import optim
from gptopt.cli.results import results
from gptopt.cli.sweep import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Compare optimizers on GPT pre-training."""


for group in (sweep, results, data, optim):
    main.add_command(group)
