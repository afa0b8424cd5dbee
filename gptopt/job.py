"""One run of a submitted sweep: python -m gptopt.job <record> <index>

The row of the record's plan says what to run, so no value of a user ever stands in a shell
line. The configuration is composed from the record's own copy of hydra_conf and must come out
as it was planned. Exit codes: those of run_hydra.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gptopt import layout
from gptopt.config.compose import compose
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError, Problem
from gptopt.run import execute
from gptopt.state import ExitCode
from gptopt.sweep.record import Record


def run(directory: Path, index: int) -> int:
    """Trains the run with this index; returns the exit code of its process."""
    record, row = Record(directory), None
    try:
        row = record.row(index)
        origin = f"{directory}, run {index}"
        config = compose(row.overrides, config_dir=directory / "conf", origin=origin)
        if config.run_id != row.run_id or str(run_directory(config)) != row.run:
            message = (
                f"it composes to {run_directory(config)} ({config.run_id[:8]}), but was planned"
                f" as {row.run} ({row.run_id[:8]}): the code or the environment has changed"
                " since. Submit the sweep again."
            )
            raise ConfigError([Problem("", message, origin)])
    except ValueError as error:
        print(error, file=sys.stderr)
        if row is not None:
            record.note_refused(row, ExitCode.CONFIG, str(error))
        return int(ExitCode.CONFIG)
    code, _ = execute(config)
    if code in (ExitCode.CONFIG, ExitCode.DATA) and not layout.is_run(Path(row.run)):
        log = f"{directory.name}/{record.logs.name}"
        record.note_refused(row, code, f"refused before it began, see its log in {log}")
    return int(code)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2])))
