"""Values against types, and the words for those that do not fit."""

import math
from typing import Any, Literal

import pytest

from gptopt.config.checks import check
from gptopt.config.problems import ConfigError, Problem, nearest, show, unknown_key
from gptopt.config.types import (
    Betas,
    Cadence,
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    Role,
    Seed,
    Share,
)
from gptopt.config.values import UNRESOLVED, MismatchError, coerce, describe

FITS = [
    # type, values that it takes
    (bool, [True, False]),
    (int, [0, -3, 10**30]),
    (float, [0.5, -1.0, 3]),
    (str, ["", "a", "1", "null"]),
    (Any, [None, 1, "x", [1], {"a": None}]),
    (PositiveInt, [1, 10**12]),
    (Count, [0, 7]),
    (Seed, [0, 2**32 - 1]),
    (Positive, [1e-300, 5, math.pi]),
    (NonNegative, [0, 0.0, 2.5]),
    (Fraction, [0, 0.5, 1]),
    (Share, [0.001, 0.999]),
    (Decay, [0, 0.0, 0.999]),
    (Cadence, [1, 1000, 0.001, 0.99]),
    (Betas, [[0.9, 0.95], (0, 0.5)]),
    (Role, ["matrix", "vector"]),
    (Literal[1, "a"], [1, "a"]),
    (PositiveInt | None, [None, 3]),
    (PositiveInt | Share, [5, 0.5]),
    (str | Count, ["auto", 0]),
    (list[Role], [[], ["head", "vector"]]),
    (list[int], [[], [1, 2]]),
    (tuple[int, ...], [[], [1, 2, 3]]),
    (dict[str, Any], [{}, {"a": [1]}]),
]
MISSES = [
    # type, values that it refuses, the words for what it takes
    (bool, [0, 1, "true", None], "true or false"),
    (int, [True, 1.0, "1", None, [1]], "a whole number"),
    (float, [True, "0.1", None, [0.1]], "a number"),
    (float, [math.nan, math.inf, -math.inf], "a finite number"),
    (str, [1, None, True, ["a"]], "a text"),
    (PositiveInt, [0, -1, 1.5, "3", None], "a whole number at least 1"),
    (Seed, [-1, 2**32, 0.0], "a whole number at least 0 and below 4294967296"),
    (Positive, [0, 0.0, -1e-9, "x", True], "a number above 0"),
    (Positive, [math.nan, math.inf], "a finite number above 0"),
    (Fraction, [-0.1, 1.1], "a number at least 0 and at most 1"),
    (Share, [0, 1, 0.0, 1.0], "a number above 0 and below 1"),
    (Decay, [1, 1.0, -0.1], "a number at least 0 and below 1"),
    (
        Cadence,
        [0, -1, 1.0, 1.5, 0.0, -0.5, True, "5", math.nan, math.inf],
        "a whole number of steps, or a share of the run between 0 and 1",
    ),
    (Betas, [0.9, [0.9], [0.9, 0.9, 0.9], None], "a list of 2, each a number at least 0 and below"),
    (Betas, [[0.9, 1]], "a list, in which 1 should be a number at least 0 and below 1"),
    (Role, ["Matrix", 0, None], "one of matrix, embedding, head, vector"),
    (Literal[1, "a"], [True, 1.0, "1"], "one of 1, a"),
    (PositiveInt | None, [0, "x", 1.5], "a whole number at least 1 or null"),
    (PositiveInt | Share, [1.0, 0, "x"], "a whole number at least 1 or a number above 0 and below"),
    (list[Role], ["head", None, {"a": 1}], "a list, each one of matrix, embedding, head, vector"),
    (list[Role], [["heads"]], "a list, in which 'heads' should be one of matrix, embedding, head"),
    (dict[str, Any], [None, 3, ["a"]], "a mapping {key: value}"),
]


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in FITS for value in values]
)
def test_a_value_of_its_type_passes_unchanged(kind, value):
    passed = coerce(value, kind)
    assert passed == (list(value) if isinstance(value, tuple) else value)
    assert (
        type(passed) is type(value) or (float in (type(passed), kind)) or isinstance(value, tuple)
    )


def test_a_whole_number_becomes_a_float_where_a_float_is_asked_for():
    assert isinstance(coerce(3, Positive), float)
    assert isinstance(coerce(3, Positive | None), float)
    assert isinstance(coerce(3, PositiveInt | Share), int)


@pytest.mark.parametrize(
    ("kind", "value", "words"), [(kind, value, w) for kind, values, w in MISSES for value in values]
)
def test_a_value_of_another_type_is_refused_in_words(kind, value, words):
    with pytest.raises(MismatchError) as caught:
        coerce(value, kind)
    assert str(caught.value).startswith(words)


def test_nothing_more_is_said_of_a_value_that_could_not_be_resolved():
    assert coerce(UNRESOLVED, Betas) is UNRESOLVED


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (PositiveInt | None, "a whole number at least 1 or null"),
        (Betas, "a list of 2, each a number at least 0 and below 1"),
        (tuple[int, str], "[a whole number, a text]"),
        (list[str], "a list, each a text"),
        (Cadence | None, "a whole number of steps, or a share of the run between 0 and 1 or null"),
    ],
)
def test_a_type_is_told_in_words(kind, words):
    assert describe(kind) == words


def test_the_nearest_choice_is_named_only_when_it_is_near():
    assert nearest("momentun", ["lr", "momentum"]) == " Did you mean 'momentum'?"
    assert nearest("zzz", ["lr", "momentum"]) == ""


def test_the_nearest_choice_is_the_one_that_differs_in_case_alone():
    assert nearest("adamW", ["adam", "adamw"]) == " Did you mean 'adamw'?"
    assert nearest("muon", ["Muon", "NorMuon"]) == " Did you mean 'Muon'?"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0.001, "0.001"), ("a b", "'a b'"), ([1, "x"], "[1, 'x']")],
)
def test_a_value_is_shown_as_it_would_be_typed(value, text):
    assert show(value) == text
    assert len(show("x" * 1000)) == 80


def test_an_unknown_key_names_the_nearest_and_all_that_there_are():
    problem = unknown_key("optimizer.optimizer_params", "momentun", ["lr", "momentum"], 0.9)
    assert str(problem) == (
        "optimizer.optimizer_params.momentun=0.9: there is no such key. Did you mean 'momentum'?"
        " optimizer.optimizer_params takes: lr, momentum."
    )


def test_a_report_counts_its_problems_and_tells_each_once():
    one = Problem("a", "a=1: no.", "here")
    other = Problem("b", "b=2: no.")
    assert str(ConfigError([one, other, one])).splitlines() == [
        "2 problems in the configuration; nothing was started.",
        "  - here: a=1: no.",
        "  - b=2: no.",
    ]


def test_nodes_that_are_missing_are_told_by_name():
    with pytest.raises(ConfigError) as caught:
        check({"args": {}, "model": {"name": "m", "family": "gpt"}})
    keys = {problem.key for problem in caught.value.problems}
    assert {"data", "optimizer", "training", "paths", "model.config"} <= keys
