from __future__ import annotations

from pathlib import Path

import pytest

from gptopt.results import Runs, load, report

from .realruns import write_real_sweep
from .rundirs import write_sweep


@pytest.fixture(scope="session")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def sweep(sweep_dir: Path) -> Runs:
    return load(sweep_dir)


@pytest.fixture(scope="session")
def page(sweep_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(sweep_dir, tmp_path_factory.mktemp("report") / "new")


@pytest.fixture(scope="session")
def real_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real_sweep(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def real(real_dir: Path) -> Runs:
    return load(real_dir)
