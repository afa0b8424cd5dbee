"""A table of runs that is revised equals one that is made anew."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gptopt.results import runtable
from gptopt.results.read import Row

values = st.sampled_from([None, True, False, 0, 1, 1.0, 0.5, float("inf"), "1", "x"])
rows = st.dictionaries(st.sampled_from("abcd"), values)


@given(st.data(), st.lists(rows, max_size=6), st.lists(rows, max_size=4))
def test_a_revised_table_is_that_of_its_rows(
    data: st.DataObject, old: list[Row], added: list[Row]
) -> None:
    # The keys of rows that were stored stand in the order of their table.
    stored = runtable.encode(old)
    sorted_old = [{name: row[name] for name in stored if name in row} for row in old]
    places = [place for place in range(len(old)) if data.draw(st.booleans())]
    revised: list[Row | int] = data.draw(st.permutations([*places, *added]))
    whole: list[Row] = [sorted_old[row] if isinstance(row, int) else row for row in revised]
    found = runtable.revise(json.loads(json.dumps(stored)), revised)
    assert as_text(found) == as_text(runtable.encode(whole))


def as_text(columns: runtable.Columns) -> str:
    return json.dumps(columns)  # unlike ==, it tells 1, 1.0 and True apart
