"""Train one GPT with one optimizer, or sweep over settings with -m.

    python run_hydra.py model=gpt-small optimizer=muon optimizer.optimizer_params.lr=0.02
    python run_hydra.py -m optimizer.optimizer_params.lr=0.001,0.003,0.01

Results go to outputs/<model>/<dataset>/<optimizer>/<run_name>/. The same command again skips
what is complete and resumes what was interrupted; +force starts over. Exit codes: 0 done,
1 crash, 2 bad configuration, 65 bad data, 69 out of memory, 73 cannot create, 74 storage,
75 stopped with a checkpoint (run again), 76 somebody else owns the run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from gptopt import layout
from gptopt.config.compose import compose, compose_all, for_sweeper
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError
from gptopt.config.typed import arguments, overrides_first, points, spelled_out
from gptopt.data import DataError
from gptopt.data.preflight import check_runs
from gptopt.run import execute, exit_code_of
from gptopt.state import ExitCode


class RunFailedError(CompactHydraException):
    """One run of a -m sweep did not get to a result; the others go on."""


@hydra.main(version_base=None, config_path="hydra_conf", config_name="config")
def main(_: DictConfig) -> float:
    """Composes and checks the configuration, trains it, and returns the final validation loss."""
    job = HydraConfig.get()
    sources = {source.provider: source.path for source in job.runtime.config_sources}
    config = compose(
        job.overrides.task, config_dir=Path(sources["main"]), config_name=str(job.job.config_name)
    )
    code, result = execute(config)
    if job.mode != RunMode.MULTIRUN:
        sys.exit(int(code))
    run = run_directory(config)
    link = Path(job.runtime.output_dir) / str(job.job.num)
    if run.is_dir() and not link.is_symlink():
        link.symlink_to(os.path.relpath(run, link.parent))
    if code == ExitCode.RUN_AGAIN:  # asked to stop: so is the sweep around this run
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":  # or this is the job of the run alone
            _requeue(run, config.cluster.attempts_without_progress)
        sys.exit(int(code))
    if result is None or code != ExitCode.DONE:
        said = f"; {layout.TASK_LOG} in it says why" if run.is_dir() else ""
        raise RunFailedError(f"{run} ended with exit code {int(code)}{said}")
    return result.objective


def _requeue(run: Path, limit: int) -> None:
    from gptopt.dispatch import rest, slurm

    if rest.may_go_on(run, limit):
        slurm.requeue()


def check() -> None:
    """Answers a wrong configuration with one report, before Hydra creates or starts anything.

    Of a good one it leaves in ``sys.argv`` what Hydra takes.
    """
    try:
        asked = arguments(sys.argv[1:])
        chosen = {override.partition("=")[0] for override in asked.overrides}
        if (
            asked.only_shows or "hydra/sweeper" in chosen
        ):  # such a sweep chooses its runs as it goes
            return
        runs = [asked.overrides]
        if asked.multirun:
            runs = points(asked.overrides, config_dir=asked.config_dir)
        config_dir, name = asked.config_dir, asked.config_name
        configs = compose_all(runs, config_dir=config_dir, config_name=name)
        if asked.multirun:
            taken = for_sweeper(asked.overrides, config_dir=config_dir, config_name=name)
            sys.argv[1:] = [taken.get(text, text) for text in sys.argv[1:]]
        if asked.multirun and "hydra/launcher" not in chosen:  # others may have other disks
            check_runs(configs)
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        sys.exit(int(exit_code_of(error)))


if __name__ == "__main__":
    sys.argv[1:] = overrides_first(spelled_out(sys.argv[1:]))
    check()
    try:
        main()
    except ValueError as error:  # of Hydra, about its flags; a run's own end in an exit code
        print(error, file=sys.stderr)
        sys.exit(int(ExitCode.CONFIG))
