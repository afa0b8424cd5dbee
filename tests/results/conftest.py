from __future__ import annotations

from pathlib import Path

import pytest

from gptopt.results import Runs, load

from .rundirs import write_sweep


@pytest.fixture(scope="session")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def sweep(sweep_dir: Path) -> Runs:
    return load(sweep_dir)
