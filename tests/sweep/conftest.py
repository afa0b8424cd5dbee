import json
import math

import pytest

from gptopt import layout
from gptopt.sweep.plan import plan


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans a sweep file with this content, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def planned(content, *extra, max_runs=100):
        file = tmp_path / "a sweep.json"
        file.write_text(json.dumps(content))
        return plan(file, extra, max_runs=max_runs)

    return planned


@pytest.fixture
def end():
    """Gives a planned run a final validation loss; it diverged where that is infinite."""

    def end(run, loss):
        run.mkdir(parents=True, exist_ok=True)
        state, final = ("completed", loss) if math.isfinite(loss) else ("diverged", None)
        (run / layout.TERMINAL[state]).write_text(json.dumps({"final": {"val_loss": final}}))

    return end
