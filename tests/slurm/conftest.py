"""A real SLURM cluster of four virtual nodes on this machine, for the whole session."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("cluster.sh")
SETTINGS = {"GPTOPT_SLURM_DIR": "/tmp/gptopt-slurm-tests", "PORT": "17817", "ACCT": "0"}


@pytest.fixture(scope="session")
def cluster():
    """Starts it, and names it in the environment; skips where it cannot start."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None and os.getuid():
        pytest.skip("SLURM is not installed, and only root can install it: cluster.sh install")
    environment = os.environ | SETTINGS
    started = subprocess.run([SCRIPT, "start"], env=environment, capture_output=True, text=True)
    try:
        if started.returncode:
            pytest.skip(f"the cluster does not start: {started.stderr[-500:]}")
        os.environ["SLURM_CONF"] = f"{SETTINGS['GPTOPT_SLURM_DIR']}/etc/slurm.conf"
        yield
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, check=True, capture_output=True)
        os.environ.pop("SLURM_CONF", None)
