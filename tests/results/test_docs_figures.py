"""docs/figures.py draws every family of which there are runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from gptopt.layout import PROJECT

from .rivals import ADAMW, MUON, write_rival


def test_a_family_with_runs_gets_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    catalogue, figures = (importlib.import_module(name) for name in ("catalogue", "figures"))
    monkeypatch.setattr(catalogue, "FIGURES", tmp_path / "figures")
    write_rival(tmp_path / "runs", "adamw", ADAMW)
    write_rival(tmp_path / "runs", "pytorch_optimizer.Lamb", MUON)  # as a run of lamb is named
    figures.main(str(tmp_path / "runs"))
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"adam-and-its-variants.png", "from-other-libraries.png"}
