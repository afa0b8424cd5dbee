"""A file system without a free byte, not only without room for a checkpoint."""

import contextlib
import subprocess

import pytest
from tiny import checkpoints, in_step, result, tiny

import gptopt
from gptopt.checkpoint import StorageError
from gptopt.config.identity import run_directory


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB: about six checkpoints of the run."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system here")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def expected(tmp_path_factory):
    return result(gptopt.train(tiny(tmp_path_factory.mktemp("undisturbed"))).run)


def fill(disk):
    """Takes every byte that is left."""
    with open(disk / "fill", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_full_for_a_while_costs_no_row_of_the_curve(disk, expected):
    config = tiny(disk, "checkpoint.save_interval=2")
    with in_step(7, lambda: fill(disk)), in_step(11, (disk / "fill").unlink):
        assert gptopt.train(config).state == "completed"
    assert result(run_directory(config)) == expected


def test_a_disk_that_stays_full_stops_the_run_with_its_last_checkpoint_intact(disk, expected):
    config = tiny(disk, "checkpoint.save_interval=2")
    run = run_directory(config)
    with in_step(7, lambda: fill(disk)), pytest.raises(StorageError, match="No space left") as said:
        gptopt.train(config)
    assert said.match(f"cannot save {run}/checkpoints/step-00000012: .*0.00 GB are free")
    assert checkpoints(run) == ["step-00000004", "step-00000006"]
    (disk / "fill").unlink()
    assert gptopt.train(config).state == "completed"
    assert result(run) == expected
