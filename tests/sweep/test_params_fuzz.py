"""Whatever stands in a sweep file, it has a plan or a message; never anything else."""

import copy
import itertools
import json
import random

import pytest

from gptopt.config.problems import ConfigError
from gptopt.layout import PROJECT
from gptopt.sweep import params

VALID = [
    json.loads((PROJECT / "params" / f"{name}.json").read_text())
    for name in ("monster", "random_search", "quickstart", "wd_sweep")
]
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 1e-308, 1.7e308, 10**400, 0.5, "", "lr", "1e-3", "$zip"),
    *([], [[]], [0.1], [1, 2, 3], [3, 1, 2], ["lr", "wd"], {}, {"lr": 1}, {"lr": [1, 2]}),
    *({"log": [1, 2, 3]}, {"lin": [0, 1]}, {"uniform": [0, 1]}, {"loguniform": [1, 2]}),
    *({"n": 3}, {"n": 3, "method": "random", "seed": 1}, {"times": [1]}, [{"lr": 0.1}], [{}]),
    *({"rcond": ["lr", "wd"]}, {"log": 1, "lin": 2}, "a\nb", "${oc.env:HOME}", "it's"),
]
KEYS = [
    *("$zip", "$each", "$sample", "$center", "$skip", "$alias", "$stages", "$top", "$what"),
    *("lr", "wd", "seed", "rcond", "optimizer", "+args.x", "args.x", "", "+", "~lr", "/", "log"),
]


def places(value):
    """Every container in a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from places(child)


def mutated(content, draw):
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 4)):
        inside = draw.choice(list(places(content)))
        value = copy.deepcopy(draw.choice([*VALUES, draw.choice(list(places(content)))]))
        if isinstance(inside, dict):
            key = draw.choice([*KEYS, *inside])
            if draw.random() < 0.2:
                inside.pop(key, None)
            else:
                inside[key] = value
        else:
            inside.insert(draw.randint(0, len(inside)), value)
    return content


def outcome(file):
    """The sweep in a file and no problems, or none and its problems."""
    try:
        return params.read(file), []
    except ConfigError as error:
        return None, error.problems


def test_a_mutated_file_gives_points_or_a_clear_message(tmp_path):
    file = tmp_path / "sweep.json"
    draw = random.Random(0)
    outcomes = {"points": 0, "message": 0}
    for _ in range(2000):
        content = mutated(draw.choice(VALID), draw)
        file.write_text(json.dumps(content))
        sweep, problems = outcome(file)
        outcomes["points" if sweep else "message"] += 1
        assert all(problem.message.endswith((".", "?")) for problem in problems), content
        assert all(str(file) in str(problem) for problem in problems), content
        if sweep:
            assert sweep.size > 0
            points = list(itertools.islice(sweep.points(), 2000))
            assert len(points) == min(sweep.size, 2000)
            for point in points:
                paths = [key.lstrip("+") for key in point]
                assert len(set(paths)) == len(paths), content
    assert min(outcomes.values()) > 200, outcomes  # both are put to the test


NESTED = {"blocks": ('{"$each": [', '{"lr": 1}', "]}"), "lists": ("[", "1", "]")}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize(
    ("depth", "is_read"), [(60, True), (480, None), (900, None), (5000, False)]
)
def test_what_nests_deep_gives_points_or_a_message(tmp_path, name, depth, is_read):
    opening, inside, closing = NESTED[name]
    file = tmp_path / "deep.json"
    nested = opening * depth + inside + closing * depth
    file.write_text(nested if name == "blocks" else f'{{"seed": {nested}}}')
    sweep, _ = outcome(file)
    assert is_read in (None, bool(sweep))  # in between it depends on how deep the caller stands
