import json
from pathlib import Path

import pytest
from stand_in import JOB, ORIGIN

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


@pytest.fixture(params=["cold", "forked"])
def kind(request):
    """How the runs of ``fake`` are started."""
    return request.param


@pytest.fixture
def fake(tmp_path, monkeypatch, recorded, kind):
    """(record, cluster) of runs that behave as told; see ``stand_in`` for what they can do."""
    (tmp_path / "fake_job.py").write_text(JOB)
    (tmp_path / "fake_origin.py").write_text(ORIGIN)
    monkeypatch.setattr("gptopt.dispatch.start.JOB_MODULE", "fake_job")
    monkeypatch.setattr("gptopt.dispatch.start.WARM_MODULE", "fake_origin")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def fake(behaviours, *extra):
        (tmp_path / "behaviour.json").write_text(json.dumps(behaviours))
        cold = ["cluster.runs_per_job=1"] * (kind == "cold")
        return recorded({"seed": list(range(len(behaviours)))}, *cold, *extra)

    return fake
