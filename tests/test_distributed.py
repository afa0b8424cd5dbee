"""Several processes train one run: the same numbers as one, all stop together, one writes."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from tiny import SETTINGS, checkpoints, end, marker, result, rows, signal_in_step, start, tiny

import gptopt
from gptopt import layout
from gptopt.config.identity import run_directory
from gptopt.distributed import BUCKET_ELEMENTS, _buckets
from gptopt.state import read_state

NO_DROPOUT = tuple(f"model.config.dropout_{where}=0.0" for where in ("embd", "attn", "resid"))
EXACT_MARS = ("optimizer=mars", "optimizer.optimizer_params.exact=true")


def accumulate(steps):
    return f"training.training_params.accumulation_steps={steps}"


def together(config, size, log, setups=None):
    """Exit codes of ``size`` processes that train ``config`` together, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        start(
            config,
            log.with_name(f"{log.name}-{rank}"),
            functools.partial(_become, rank, size, port, (setups or {}).get(rank)),
        )
        for rank in range(size)
    ]
    return [end(process) for process in processes]


def _become(rank, size, port, setup):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if setup is not None:
        setup()


def numbers(run, *keys):
    keys = keys or ("train_loss", "val_loss")
    return np.array([row[key] for row in rows(run) for key in keys if key in row])


@pytest.mark.parametrize("optimizer", [(), EXACT_MARS], ids=["adamw", "exact-mars"])
def test_two_processes_equal_one_that_accumulates_twice_as_much(tmp_path, optimizer):
    # float32 sums in another order, over 24 steps: 1e-5 of losses around 5. The norms show the
    # size of the gradient, which clipping and AdamW hide from the losses.
    one = gptopt.train(tiny(tmp_path / "one", *NO_DROPOUT, *optimizer, accumulate(4))).run
    config = tiny(tmp_path / "two", *NO_DROPOUT, *optimizer, accumulate(2))
    assert together(config, 2, tmp_path / "log") == [0, 0]
    two = run_directory(config)
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-5)
    np.testing.assert_allclose(numbers(two, "grad_norm"), numbers(one, "grad_norm"), rtol=1e-4)
    assert [row["tokens"] for row in rows(two)] == [row["tokens"] for row in rows(one)]
    derived = yaml.safe_load((two / layout.RESOLVED).read_text())["derived"]
    assert (derived["world_size"], derived["global_batch_size"]) == (2, 8)


def test_two_processes_equal_one_where_their_targets_count_unequally(tmp_path):
    # Means over each process's targets would differ: letters a to n do not count.
    asked = ("data.ignore.token_range=[97,110]", "data.documents=mask", "data.end_of_text=10")
    one = gptopt.train(tiny(tmp_path / "one", *NO_DROPOUT, *asked, accumulate(4))).run
    config = tiny(tmp_path / "two", *NO_DROPOUT, *asked, accumulate(2))
    assert together(config, 2, tmp_path / "log") == [0, 0]
    two = run_directory(config)
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-5)
    np.testing.assert_allclose(numbers(two, "grad_norm"), numbers(one, "grad_norm"), rtol=1e-4)


@pytest.mark.parametrize("size", [2, 3])
def test_a_signal_to_one_process_stops_all_and_the_resume_is_exact(tmp_path, size):
    undisturbed, config = tiny(tmp_path / "undisturbed"), tiny(tmp_path / "stopped")
    assert together(undisturbed, size, tmp_path / "log") == [0] * size
    expected = run_directory(undisturbed)

    last = size - 1
    hurt = {last: functools.partial(signal_in_step, 9, signal.SIGTERM)}
    assert together(config, size, tmp_path / "log", hurt) == [75] * size
    run = run_directory(config)
    assert (read_state(run).state, read_state(run).step) == ("preempted", 9)
    assert "another process was asked to stop" in read_state(run).reason
    names = {path.name for path in layout.checkpoint_dir(run, 9).iterdir()}
    assert names == {"state.pt", "manifest.json"} | {f"rank-000{r}.pt" for r in range(1, size)}

    assert together(config, size, tmp_path / "log") == [0] * size
    assert result(run) == result(expected)
    assert layout.attempt_numbers(run) == [1, 2]  # one lease an attempt, not one a process

    before = sorted(run.rglob("*"))
    assert together(config, size, tmp_path / "again") == [0] * size
    assert sorted(run.rglob("*")) == before


def test_dropout_differs_between_processes_and_validation_does_not(tmp_path):
    # With the same masks in both, a run on twice the same window would equal one process on it.
    config = tiny(tmp_path)
    assert together(config, 2, tmp_path / "log") == [0, 0]
    checkpoint_dir = layout.checkpoint_dir(run_directory(config), 24)
    main = torch.load(checkpoint_dir / "state.pt", weights_only=True)["random"]["torch"]
    other = torch.load(checkpoint_dir / "rank-0001.pt", weights_only=True)["random"]["torch"]
    assert not torch.equal(main, other)


def test_a_forced_start_of_two_processes_begins_anew_in_both(tmp_path):
    config = tiny(tmp_path, "training.training_params.max_steps=4")
    assert together(config, 2, tmp_path / "log") == [0, 0]
    forced = tiny(tmp_path, "training.training_params.max_steps=4", "+force")
    assert together(forced, 2, tmp_path / "log") == [0, 0]
    run = run_directory(config)
    assert layout.attempt_numbers(run) == [1]
    assert (run.parent / ".aside" / f"{run.name}-1" / "completed.json").exists()


def test_a_run_with_a_global_batch_goes_on_with_other_processes(tmp_path):
    settings = (*NO_DROPOUT, accumulate("null"), "training.training_params.global_batch_size=8")
    one = gptopt.train(tiny(tmp_path / "one", *settings)).run
    config = tiny(tmp_path / "both", *settings)
    run = run_directory(config)
    hurt = {0: functools.partial(signal_in_step, 9, signal.SIGTERM)}
    assert together(config, 2, tmp_path / "log", hurt) == [75, 75]
    gptopt.train(config)
    np.testing.assert_allclose(numbers(run), numbers(one), rtol=1e-5)
    assert "not bit-exact: world_size 2 -> 1\n" in (run / layout.TASK_LOG).read_text()
    first = {row["step"]: row["train_loss"] for row in rows(run) if "train_loss" in row}
    assert sorted(first) == list(range(1, 25))


def test_a_process_that_is_new_on_a_resume_has_its_own_dropout(tmp_path):
    settings = (accumulate("null"), "training.training_params.global_batch_size=8")
    config = tiny(tmp_path, *settings)
    setup = functools.partial(signal_in_step, 5, signal.SIGTERM)
    assert together(config, 1, tmp_path / "log", {0: setup}) == [75]
    assert together(config, 2, tmp_path / "log") == [0, 0]
    directory = layout.checkpoint_dir(run_directory(config), 24)
    main = torch.load(directory / "state.pt", weights_only=True)["random"]["torch"]
    other = torch.load(directory / "rank-0001.pt", weights_only=True)["random"]["torch"]
    assert not torch.equal(main, other)


def test_other_processes_may_not_silently_change_the_batch(tmp_path):
    config = tiny(tmp_path)
    setup = functools.partial(signal_in_step, 5, signal.SIGTERM)
    assert together(config, 1, tmp_path / "log", {0: setup}) == [75]
    attempts = layout.attempt_numbers(run_directory(config))
    assert together(config, 2, tmp_path / "refused") == [2, 2]
    said = (tmp_path / "refused-0").read_text()
    assert "began with global_batch_size 4 (1 processes)" in said
    assert "with 2 processes and this data it is 8" in said
    assert layout.attempt_numbers(run_directory(config)) == attempts
    assert together(config, 1, tmp_path / "log") == [0]


def test_gradients_are_summed_in_buckets_that_keep_their_order():
    sizes = [3, BUCKET_ELEMENTS - 3, 1, BUCKET_ELEMENTS + 5, 2, 2]
    gradients = [torch.empty(size, device="meta") for size in sizes]
    found = [[gradient.numel() for gradient in bucket] for bucket in _buckets(gradients)]
    assert found == [sizes[:2], sizes[2:3], sizes[3:4], sizes[4:]]


@pytest.mark.slow
def test_torchrun_starts_and_stops_a_run(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(layout.ENTRY), *SETTINGS]
    command += [f"paths.output_dir={tmp_path}"]
    run = run_directory(tiny(tmp_path))
    # torchrun makes 1 of every exit code but 0; the run's directory knows better
    first = subprocess.run([*command, "cluster.deadline=1"], cwd=tmp_path, timeout=300)
    assert first.returncode == 1
    assert (read_state(run).state, read_state(run).exit_code) == ("preempted", 75)
    assert checkpoints(run) == ["step-00000001"]
    assert subprocess.run(command, cwd=tmp_path, timeout=300).returncode == 0
    assert together(tiny(tmp_path / "forked"), 2, tmp_path / "log") == [0, 0]
    assert marker(run)["weights"] == marker(run_directory(tiny(tmp_path / "forked")))["weights"]
    assert json.loads(layout.attempt_file(run, 2).read_text())["start_step"] == 1
