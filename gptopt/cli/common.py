"""What the commands share: how an error ends a process, and where results lie."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from gptopt.state import ExitCode

SWEEPS = Path("logs")
REPORTS = Path("reports")


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Ends the process with the right code and one clear message instead of a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:  # ConfigError and DataError are some
            click.echo(error, err=True)
            sys.exit(int(getattr(error, "exit_code", ExitCode.CONFIG)))
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"{error.filename}: {error.strerror}.", err=True)
            sys.exit(int(ExitCode.CANNOT_CREATE))

    return wrapped


def write_report(runs: list[Path], out: Path) -> None:
    """Writes the report of these runs and says where."""
    from gptopt import results as analysis

    click.echo(f"report: {analysis.report(runs, out)}")
