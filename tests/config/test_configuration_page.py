"""docs/configuration.md tells what is so."""

import importlib.util
import re
import shlex
import sys

import pytest

from gptopt.config.compose import compose, compose_all
from gptopt.config.problems import ConfigError
from gptopt.config.typed import points
from gptopt.layout import PROJECT
from gptopt.state import ExitCode

spec = importlib.util.spec_from_file_location("reference", PROJECT / "docs" / "reference.py")
reference = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
PAGE = (PROJECT / "docs" / "configuration.md").read_text()
COMMANDS = re.findall(r"^python run_hydra\.py (.*)$", PAGE, re.MULTILINE)


def test_the_tables_are_up_to_date():
    assert reference.page(PAGE) == PAGE, "run: python docs/reference.py"


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in reference.GROUPS if g != "experiment" for o in reference.options(g)],
)
def test_every_key_is_explained_in_its_file_or_in_another_of_its_group(group, option):
    _, rows = reference.rows_of(group, option)
    assert rows or option in ("fineweb1B", "slim_pajama10B")
    assert not [row.path for row in rows if row.value and not reference.comment(group, row)]


def test_a_comment_may_go_on_in_the_next_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("# Top,\n# more.\na: 1  # one\n     # two\nb:\n  c: '#'\n  d: []# no\n")
    assert reference.read(file) == (
        "Top, more.",
        [
            reference.Row("a", "1", "one two"),
            reference.Row("b", "", ""),
            reference.Row("b.c", "'#'", ""),
            reference.Row("b.d", "[]# no", ""),
        ],
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_the_page_composes(command):
    words = shlex.split(command, comments=True)
    if "--help" in words:
        return
    shown = {"--cfg", "job", "--resolve", "-m"}
    overrides = [word for word in words if word not in shown]
    assert len(compose_all(points(overrides))) == (6 if "-m" in words else 1)


def test_every_way_to_write_an_override_on_the_page_composes():
    rows = re.findall(r"^\| `([^`]*=[^`]*)` \| (?:choose|change|switch|add|lay|keep|give) ", PAGE,
                      re.MULTILINE)  # fmt: skip
    assert len(rows) >= 7
    for row in rows:
        compose(shlex.split(row))


def test_the_report_on_the_page_is_what_is_reported():
    report = PAGE[PAGE.index("3 problems in") :].split("\n```")[0]
    with pytest.raises(ConfigError) as caught:
        compose(
            [
                "optimizer.optimizer_params.lrr=0.1",
                "training.training_params.dtype=bf16",
                "training.training_params.context_length=512",
            ]
        )
    assert str(caught.value) == report


def test_every_exit_code_and_resolver_is_on_the_page():
    for code in ExitCode:
        assert f"\n| {int(code)} | " in PAGE
    for name in ("eval", "div", "first", "num", "cpu_count", "device_count", "run_hash"):
        assert f"${{{name}:" in PAGE
