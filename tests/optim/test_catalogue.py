"""docs/optimizers.md tells what is so."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from gptopt.config.checks import choices_of
from gptopt.layout import PROJECT

sys.path.append(str(PROJECT / "docs"))  # catalogue.py stands on reference.py beside it
spec = importlib.util.spec_from_file_location("docs_catalogue", PROJECT / "docs/catalogue.py")
catalogue = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(catalogue)
PAGE = catalogue.PAGE.read_text("utf-8")


def test_the_page_is_up_to_date() -> None:
    assert catalogue.page(catalogue.costs_on(PAGE)) == PAGE, "run: python docs/catalogue.py"


def test_every_optimizer_has_costs_on_it() -> None:
    assert catalogue.costs_on(PAGE).keys() == set(choices_of("optimizer"))


@pytest.mark.parametrize("option", ["lion", "adamw", "muon"])
def test_its_costs_are_those_counted_now(option: str) -> None:
    assert catalogue.count(option) == catalogue.costs_on(PAGE)[option]


def test_a_figure_is_shown_where_its_file_is(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FIGURES", tmp_path)
    assert "](figures/" not in catalogue.page({})
    (tmp_path / "shampoo-and-its-relatives.png").touch()
    assert "![Shampoo and its relatives](figures/shampoo-and-its-relatives.png)" in catalogue.page(
        {}
    )
