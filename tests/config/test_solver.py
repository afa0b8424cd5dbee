"""The arithmetic of batches, devices and lengths, against numbers worked out by hand."""

import re
from contextlib import nullcontext

import pytest

from gptopt.config import solver

BATCHES = [
    # batch, global, accumulation, devices -> batch, global, accumulation
    ((8, None, None, 1), (8, 8, 1)),
    ((8, None, None, 4), (8, 32, 1)),
    ((8, None, 3, 1), (8, 24, 3)),
    ((8, None, 3, 2), (8, 48, 3)),
    ((None, 32, None, 1), (32, 32, 1)),
    ((None, 32, None, 4), (8, 32, 1)),
    ((None, 32, 2, 4), (4, 32, 2)),
    ((8, 32, None, 1), (8, 32, 4)),
    ((8, 32, None, 2), (8, 32, 2)),
    ((8, 32, None, 4), (8, 32, 1)),
    ((8, 32, 4, 1), (8, 32, 4)),
    ((1, 512, None, 8), (1, 512, 64)),
    ((32, 512, None, 1), (32, 512, 16)),
]


@pytest.mark.parametrize(("given", "expected"), BATCHES)
def test_batch_is_solved(given, expected):
    batch, total, steps, devices = given
    solved = solver.solve_batch(
        batch_size=batch,
        global_batch_size=total,
        accumulation_steps=steps,
        data_parallel_size=devices,
    )
    assert (solved.batch_size, solved.global_batch_size, solved.accumulation_steps) == expected
    product = solved.batch_size * solved.accumulation_steps * solved.data_parallel_size
    assert product == solved.global_batch_size


CONTRADICTIONS = [
    (
        (None, 7, None, 2),
        "Batch size must be divisible by data parallel size"
        " (global_batch_size=7, data_parallel_size=2)",
    ),
    ((None, None, None, 1), "batch_size and global_batch_size are both null"),
    ((None, None, 4, 2), "batch_size and global_batch_size are both null"),
    ((5, 24, None, 1), "batch_size=5 does not divide; batch_size=4 does"),
    ((64, 32, None, 1), "batch_size=64 does not divide; batch_size=32 does"),
    ((8, 32, None, 8), "batch_size=8 does not divide; batch_size=4 does"),
    ((8, 32, 3, 1), "takes accumulation_steps=4 (batch_size=8, data_parallel_size=1), not 3"),
    ((None, 32, 3, 1), "accumulation_steps=3 does not divide"),
]


@pytest.mark.parametrize(("given", "message"), CONTRADICTIONS)
def test_contradicting_batch_is_refused_with_its_numbers(given, message):
    batch, total, steps, devices = given
    with pytest.raises(ValueError, match=re.escape(message)):
        solver.solve_batch(
            batch_size=batch,
            global_batch_size=total,
            accumulation_steps=steps,
            data_parallel_size=devices,
        )


LENGTHS = [
    # max_steps, max_tokens, num_epochs, windows -> steps (1,024 tokens and 8 windows a step)
    ((100, None, None, None), 100),
    ((None, 10_240, None, None), 10),
    ((None, 10_250, None, None), 10),
    ((None, None, 1.0, 800), 100),
    ((None, None, 0.5, 800), 50),
    ((None, None, 2.0, 804), 201),
    ((100, 10_240, None, None), 10),
    ((5, 10_240, 1.0, 800), 5),
    ((1000, None, 1.0, 800), 100),
    ((1000, None, 1.0, None), 1000),
    ((None, None, 1.0, None), None),
]


@pytest.mark.parametrize(("given", "steps"), LENGTHS)
def test_the_tightest_limit_is_the_length(given, steps):
    max_steps, max_tokens, num_epochs, windows = given
    length = solver.solve_length(
        max_steps=max_steps,
        max_tokens=max_tokens,
        num_epochs=num_epochs,
        tokens_per_step=1024,
        global_batch_size=8,
        windows=windows,
    )
    assert (length and length.max_steps) == steps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None, 100), "max_steps, max_tokens and num_epochs are all null"),
        ((None, 1000, None, None), "max_tokens 1000 // tokens_per_step 1024 = 0 steps"),
        ((None, None, 0.005, 800), "num_epochs 0.005 x 800 windows // 8 = 0 steps"),
    ],
)
def test_a_run_without_steps_is_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        solver.solve_length(
            max_steps=given[0],
            max_tokens=given[1],
            num_epochs=given[2],
            tokens_per_step=1024,
            global_batch_size=8,
            windows=given[3],
        )


@pytest.mark.parametrize(
    ("data", "tensor", "available", "expected"),
    [(None, 1, 1, 1), (None, 1, 8, 8), (8, 1, 8, 8), (None, 2, 8, 4), (4, 2, 8, 4)],
)
def test_devices_are_shared_out(data, tensor, available, expected):
    sizes = {"data_parallel_size": data, "tensor_parallel_size": tensor}
    assert solver.check_devices(sizes, available) == expected


@pytest.mark.parametrize(("data", "tensor", "available", "total"), [(3, 2, 4, 6), (2, 1, 1, 2)])
def test_devices_that_are_not_there_are_refused(data, tensor, available, total):
    sizes = {"data_parallel_size": data, "tensor_parallel_size": tensor}
    sentence = f"Total devices ({total}) must match available GPUs ({available})"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        solver.check_devices(sizes, available)


@pytest.mark.parametrize(
    ("cadence", "steps"), [(None, None), (1, 1), (250, 250), (0.1, 30), (0.001, 1), (0.5, 150)]
)
def test_a_cadence_is_steps_or_a_share_of_the_run(cadence, steps):
    assert solver.steps_of(cadence, 300) == steps


def test_fractions_of_a_schedule_become_steps():
    schedule = {
        "name": "wsd",
        "warmup_steps": None,
        "warmup_fraction": 0.05,
        "decay_steps": 40,
        "decay_fraction": None,
        "min_lr_ratio": 0.1,
    }
    solved = solver.solve_schedule(schedule, 200)
    assert solved == {"warmup_steps": 10, "decay_steps": 40, "min_lr_ratio": 0.1}


def test_a_length_in_steps_goes_before_its_fraction():
    schedule = {"name": "linear", "warmup_steps": 5, "warmup_fraction": 0.1}
    assert solver.solve_schedule(schedule, 100) == {"warmup_steps": 5}


@pytest.mark.parametrize(
    ("stable", "is_refused"), [(9, True), (10, False), (100, False), (101, True)]
)
def test_stable_steps_hold_the_warm_up_and_end_within_the_run(stable, is_refused):
    schedule = {"name": "constant_linear", "warmup_steps": 10, "stable_steps": stable}
    words = f"stable_steps {stable} have to hold warmup_steps 10 and to end within the run's 100"
    with pytest.raises(ValueError, match=words) if is_refused else nullcontext():
        solver.solve_schedule(schedule, 100)


def test_a_schedule_longer_than_the_run_is_refused():
    schedule = {"name": "wsd", "warmup_steps": 60, "decay_steps": 50}
    with pytest.raises(ValueError, match="60 .* 50 are more than the run's 100 steps"):
        solver.solve_schedule(schedule, 100)
