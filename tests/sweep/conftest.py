import json

import pytest

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
