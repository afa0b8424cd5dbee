"""The page of a report in a real browser; skipped where there is no Chromium for Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptopt.results.page import FOLDED_ROWS, Heading, Table, to_html

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        # a container's root has no sandbox
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=args)
        yield chromium
        chromium.close()


class Visit:
    """An open page, what it said on the console and what it asked for."""

    def __init__(self, browser: playwright.Browser, file: Path, width: int, theme: str) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=True
        )
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def column(self, table: str, number: int) -> list[str]:
        """The visible cells of a column, counted from 1."""
        cells = self.page.locator(f"{table} tbody tr:visible td:nth-child({number})")
        return cells.all_text_contents()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A page with one table of few rows and one of many."""
    few = Table(
        ["name", "loss", "p"],
        [
            ["seed-10", "2.5000 ± 0.1", ""],
            ["seed-2", "1,000", "0.0500"],
            ["seed-1", "-0.5", "< 0.0001"],
            ["seed-3", "inf", "1e-3"],
        ],
    )
    many = Table(["run"], [[f"run {number}"] for number in range(FOLDED_ROWS + 5)])
    file = tmp_path / "small.html"
    file.write_text(to_html([Heading("Title", 1), Heading("Part", 2), few, many], "small"))
    return file


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_report_fits_its_window_is_silent_and_asks_for_nothing(
    browser: playwright.Browser, page: Path, width: int, theme: str
) -> None:
    visit = Visit(browser, page, width, theme)
    visit.page.locator("details summary").first.click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [page.as_uri()]
    images = visit.page.locator("img")
    assert images.count() == 8
    assert all(images.evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 500)"))
    # Light letters on dark ground or the other way round, figures included.
    style = "getComputedStyle"
    back = visit.page.evaluate(f"{style}(document.body).backgroundColor")
    filtered = visit.page.evaluate(f"{style}(document.querySelector('img')).filter")
    assert (back == "rgb(255, 255, 255)") == (theme == "light")
    assert (filtered == "none") == (theme == "light")
    visit.page.close()


def test_every_link_leads_somewhere(browser: playwright.Browser, page: Path) -> None:
    visit = Visit(browser, page, 1280, "light")
    links = visit.page.locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    inside = [link for link in links if link.startswith("#")]
    assert len(inside) >= 3
    for link in inside:
        assert visit.page.locator(link).count() == 1
    files = [page.parent / link for link in links if not link.startswith("#")]
    assert len(files) == 9  # of each figure, and the sweep file
    assert all(file.is_file() for file in files)
    visit.page.close()


def test_a_click_on_a_head_sorts_numbers_as_numbers_and_empty_cells_last(
    browser: playwright.Browser, small: Path
) -> None:
    visit = Visit(browser, small, 1280, "light")
    table = "table:first-of-type"
    head = visit.page.locator("th button")
    head.nth(1).click()
    assert visit.column(table, 2)[:4] == ["-0.5", "2.5000 ± 0.1", "1,000", "inf"]
    assert visit.page.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    head.nth(1).click()
    assert visit.column(table, 2)[:4] == ["inf", "1,000", "2.5000 ± 0.1", "-0.5"]
    head.nth(2).click()
    assert visit.column(table, 3)[:4] == ["< 0.0001", "1e-3", "0.0500", ""]
    head.nth(2).click()
    assert visit.column(table, 3)[:4] == ["0.0500", "1e-3", "< 0.0001", ""]
    head.nth(0).focus()
    visit.page.keyboard.press("Enter")
    assert visit.column(table, 1)[:4] == ["seed-1", "seed-2", "seed-3", "seed-10"]
    assert visit.page.locator("th[aria-sort]").count() == 1
    assert visit.said == []
    visit.page.close()


def test_a_long_table_unfolds_and_can_be_searched(browser: playwright.Browser, small: Path) -> None:
    visit = Visit(browser, small, 400, "dark")
    rows = visit.page.locator("details tbody tr")
    assert rows.count() == FOLDED_ROWS + 5
    assert not rows.first.is_visible()
    visit.page.locator("summary").click()
    assert rows.first.is_visible()
    visit.page.get_by_role("searchbox").fill("2 RUN")
    assert visit.column("details", 1) == ["run 2", "run 12", *(f"run {n}" for n in range(20, 30))]
    assert visit.page.locator("summary").inner_text() == "12 of 30 rows"
    visit.page.get_by_role("searchbox").fill("")
    assert visit.page.locator("summary").inner_text() == "30 rows"
    visit.page.close()
