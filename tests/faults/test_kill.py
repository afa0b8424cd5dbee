"""A run that is killed goes on as if nothing had happened."""

import random
import time

import pytest
from tiny import end, result, start, tiny

from gptopt.config.identity import run_directory

KILLS = 20


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_killed_at_random_moments_ends_with_the_same_curve_and_weights(tmp_path, optimizer):
    for name in ("first", "undisturbed"):  # the first also starts the server that forks
        undisturbed = tiny(tmp_path / name, f"optimizer={optimizer}")
        began = time.monotonic()
        assert end(start(undisturbed)) == 0
        duration = time.monotonic() - began
    expected = result(run_directory(undisturbed))

    moments = random.Random(optimizer)
    kills, runs = 0, 0
    while kills < KILLS:
        config = tiny(tmp_path / f"killed-{runs}", f"optimizer={optimizer}")
        runs += 1
        code = None
        while code != 0:
            process = start(config, tmp_path / "log")
            process.join(moments.uniform(0, duration) if kills < KILLS else None)
            process.kill()
            code = end(process)
            assert code in (0, -9), (tmp_path / "log").read_text()
            kills += code == -9
        assert result(run_directory(config)) == expected
