"""docs/sweeps.md tells what is so."""

import json
import re

import pytest

from gptopt.layout import PROJECT
from gptopt.sweep.block import WORDS

PAGE = (PROJECT / "docs" / "sweeps.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```\n\n(\d+) runs", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("text", "count"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_page_can_be_planned_and_has_as_many_runs_as_it_says(
    planned, text, count
):
    plan = planned(json.loads(text))
    assert len(plan.runs) == int(count)
    assert plan.notes == []


def test_every_example_says_its_number_of_runs_and_every_word_has_a_section():
    assert len(EXAMPLES) == PAGE.count("```json")
    assert set(re.findall(r"^## `(\$\w+)`", PAGE, flags=re.MULTILINE)) == set(WORDS)


def test_the_messages_of_the_page_are_those_of_the_program(planned):
    content = {"$zip": {"bs": [1, 2, 3], "lr": [1, 2]}, "$each": [{"lrr": 1}]}
    with pytest.raises(ValueError, match="2 problems") as error:
        planned(content)
    told = [line.split("/", 2)[-1] for line in PAGE.splitlines() if line.startswith("params/my")]
    assert len(told) == 2
    assert all(line in str(error.value) for line in told)
