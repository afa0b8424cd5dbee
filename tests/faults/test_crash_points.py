"""A run that is killed at any of its file operations goes on as if nothing had happened."""

import functools
import os
import signal

import pytest
from tiny import checkpoints, end, result, start, tiny

from gptopt.config.identity import run_directory

OPERATIONS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "utime")
SETTINGS = (
    "training.training_params.max_steps=6",
    "checkpoint.save_interval=2",
    "checkpoint.keep_last=1",
    "logging.logging_params.eval_interval=3",
    "logging.logging_params.eval_tokens=64",
)


def die_at(point, journal):
    """A ``setup`` of ``start``: SIGKILL just before file operation number ``point``.

    Of a write half is done first. The names of the operations go to ``journal``, a byte pipe of
    its own that is not counted.
    """
    done, real = 0, {name: getattr(os, name) for name in OPERATIONS}
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(name, *args, **settings):
        nonlocal done
        if name == "open" and not args[1] & os.O_CREAT:
            return real[name](*args, **settings)  # reads
        done += 1
        real["write"](descriptor, f"{name} {args[0]}\n".encode())
        if done == point:
            if name == "write":
                real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*args, **settings)

    for name in OPERATIONS:
        setattr(os, name, functools.partial(counted, name))


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_file_operation_ends_with_the_same_curve_and_weights(tmp_path, stride):
    undisturbed = tiny(tmp_path / "undisturbed", *SETTINGS)
    journal = tmp_path / "journal"
    assert end(start(undisturbed, setup=functools.partial(die_at, None, journal))) == 0
    operations = journal.read_text().splitlines()
    expected = result(run_directory(undisturbed))
    assert {line.split()[0] for line in operations} == set(OPERATIONS)

    for point in range(1, len(operations) + 1, stride):
        config = tiny(tmp_path / str(point), *SETTINGS)
        place = f"killed at {point} of {len(operations)}: {operations[point - 1]}"
        killed = start(config, setup=functools.partial(die_at, point, tmp_path / f"{point}.log"))
        assert end(killed) == -signal.SIGKILL, place
        was_completed = (run_directory(config) / "completed.json").exists()
        assert end(start(config, tmp_path / "log")) == 0, place + (tmp_path / "log").read_text()
        run = run_directory(config)
        assert result(run) == expected, place
        assert checkpoints(run) == ["step-00000006"], place
        # a run that is completed is not touched again, not even to sweep
        assert was_completed or not [p for p in run.rglob("*") if p.suffix == ".tmp"], place
