"""``gptopt sweep``: the life of a parameter file, from plan to result."""

from __future__ import annotations

import click

from gptopt.cli.launch import next_command, plan_command, retry, submit
from gptopt.cli.standing import cancel, extend, status


@click.group()
def sweep() -> None:
    """Run a parameter file: everything in it that has no result yet."""


for command in (plan_command, submit, next_command, status, retry, extend, cancel):
    sweep.add_command(command)
