from __future__ import annotations

import http.client
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptopt.results import load
from gptopt.results.serve import address, server
from gptopt.results.watch import left, lines, sparkline

from .rivals import write_both


def test_a_sparkline_runs_from_the_highest_bar_to_the_lowest() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([3.0, math.inf, 1.0]) == "█x▁"
    assert sparkline([math.nan]) == "x"
    assert sparkline([]) == ""


def test_a_long_sparkline_keeps_its_ends() -> None:
    drawn = sparkline([9.0, *[5.0] * 998, 1.0], width=10)
    assert (len(drawn), drawn[0], drawn[-1]) == (10, "█", "▁")


@pytest.mark.parametrize(
    ("step", "seconds", "said"),
    [
        (100, 60.0, "0:02:00 left"),
        (1, 3600.0, "299:00:00 left"),
        (0, math.nan, ""),
        (5, math.nan, ""),
    ],
)
def test_the_time_left_if_the_rest_goes_as_fast(step: int, seconds: float, said: str) -> None:
    assert left(step, 300, seconds) == said


def test_counts_and_the_best_so_far(tmp_path: Path) -> None:
    said = lines(load(write_both(tmp_path)))
    assert said[0] == "gpt-tiny on stdlib, 204,800 tokens: 18 runs, 18 completed"
    assert said[1] == "  muon   2.0500 ± 0.0100  n = 3  lr 0.02 of 3"
    assert said[2].startswith("  adamw  2.2633 ± 0.0153")
    assert lines(load(tmp_path / "nothing")) == ["no run yet"]


def test_a_run_at_work_is_shown_with_its_curve(tmp_path: Path) -> None:
    found = load(write_both(tmp_path))
    found.runs.loc[found.runs.index[-1], ["state", "step"]] = ["running", 100]
    (said,) = [line for line in lines(found) if "left" in line]
    # Ten equal steps down, of which two pairs share one of the eight bars.
    assert "100/200  █▇▆▆▅▄▃▃▂▁" in said


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def page() -> Iterator[tuple[str, int]]:
    with server(("127.0.0.1", 0), lambda: ["<b>muon</b> & co"]) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield "127.0.0.1", int(running.server_address[1])
        running.shutdown()
        thread.join()


def get(
    page: tuple[str, int], path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*page, timeout=20)
    connection.request(method, path, headers={"Host": host or "127.0.0.1"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_page_shows_the_lines_as_text_and_refreshes_itself(page: tuple[str, int]) -> None:
    status, text = get(page, "/")
    assert status == 200
    assert "<pre>&lt;b&gt;muon&lt;/b&gt; &amp; co</pre>" in text
    assert '<meta http-equiv="refresh" content="5">' in text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../../etc/passwd", "/%2e%2e/run.json", "/?a=1", "run_hydra.py"]
)
def test_the_page_has_one_address(page: tuple[str, int], path: str) -> None:
    status, text = get(page, path)
    assert status == 404
    assert "muon" not in text


def test_the_page_takes_no_other_method_and_no_other_host(page: tuple[str, int]) -> None:
    assert get(page, "/", method="POST")[0] == 501
    assert get(page, "/", host="example.org")[0] == 403
    assert get(page, "/", host="localhost:8000")[0] == 200


def test_a_taken_port_is_an_error_in_words(page: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=f"127.0.0.1:{page[1]}: Address already in use"):
        server(page, list)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("127.0.0.2:1", ("127.0.0.2", 1)),
    ],
)
def test_addresses_of_this_machine(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.0.0.0:8000", "served on 127.0.0.1 only"),
        ("192.168.0.7:8000", "ssh -L 8000:127.0.0.1:8000"),
        ("example.org:8000", "served on 127.0.0.1 only"),
        (":8000", "served on 127.0.0.1 only"),
        ("http", "takes a port"),
        ("70000", "takes a port"),
        ("-1", "takes a port"),
    ],
)
def test_other_addresses_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        address(text)
