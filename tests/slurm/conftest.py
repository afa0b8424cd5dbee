"""Real SLURM clusters of four virtual nodes on this machine, for the whole session."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import clear

SCRIPT = Path(__file__).with_name("cluster.sh")
PLAIN = {
    "GPTOPT_SLURM_DIR": "/tmp/gptopt-slurm-tests",
    "PORT": "17817",
    "ACCT": "0",
    "EXTRA": "MaxArraySize=6",
}
CONFINED = {
    "GPTOPT_SLURM_DIR": "/tmp/gptopt-slurm-confined",
    "PORT": "18817",
    "ACCT": "1",
    "CGROUP": "1",
}


@contextlib.contextmanager
def _started(settings):
    """Starts a cluster and gives the path of its slurm.conf; skips where it cannot start."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None and os.getuid():
        pytest.skip("SLURM is not installed, and only root can install it: cluster.sh install")
    environment = os.environ | settings
    started = subprocess.run([SCRIPT, "start"], env=environment, capture_output=True, text=True)
    try:
        if started.returncode:
            pytest.skip(f"the cluster does not start: {started.stderr[-500:]}")
        yield f"{settings['GPTOPT_SLURM_DIR']}/etc/slurm.conf"
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def plain():
    """No accounting, and every job sees every device: absolute numbers in CUDA_VISIBLE_DEVICES."""
    with _started(PLAIN) as conf:
        yield conf


@pytest.fixture(scope="session")
def confined():
    """With accounting, and a job sees its own devices alone, numbered from 0."""
    if os.getuid():
        pytest.skip("only root can confine devices")
    with _started(CONFINED) as conf:
        yield conf


@pytest.fixture
def place(request, tmp_path, monkeypatch):
    """A working directory with an awkward name, from which SLURM can be asked for things."""
    monkeypatch.setenv("SLURM_CONF", request.getfixturevalue(getattr(request, "param", "plain")))
    directory = tmp_path / "it's here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    yield directory
    clear()
