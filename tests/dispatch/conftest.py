import json
from pathlib import Path

import pytest

from gptopt.sweep.plan import plan
from gptopt.sweep.record import Record


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """(record, cluster) of a sweep with this content, submitted from an empty directory."""
    monkeypatch.chdir(tmp_path)

    def recorded(content, *extra):
        file = Path("sweep.json")
        file.write_text(json.dumps(content))
        planned = plan(file, extra, max_runs=100)
        return Record.create(planned, tmp_path / "logs"), planned.cluster

    return recorded
