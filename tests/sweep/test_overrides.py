"""Values of a sweep file as override strings: Hydra must read back what was written."""

import random
import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gptopt.config.survey import survey
from gptopt.sweep.overrides import override, overrides, problem_of

ALPHABET = "abxyz0189 ,=[]{}()'\"\\$#:;|&<>%*?!~`@+-_./éß漢"
NASTY = (
    *("null", "true", "False", "1e-3", "1_000", "08", "0x10", "nan", "-inf", "1:2", "a: b", ""),
    *("a,b", "choice(1,2)", "range(1,3)", "glob(*)", "x{y}", "(z)", "it's", "a=b", "#x", "[1,2]"),
    *("\\", "\\\\", "'", "\\'", "'\\", "\\\\'", "\\'\\", '"', '\\"', "$", "$(touch x)", "a;b", "."),
)


def random_value(random: random.Random, depth: int = 0) -> object:
    kind = random.randrange(8 if depth < 2 else 7)
    if kind == 0:
        return random.choice([None, True, False])
    if kind == 1:
        return random.randrange(-(10**12), 10**12)
    if kind == 2:
        return random.random() * 10.0 ** random.randrange(-30, 30)
    if kind == 3:
        return random.choice([0.0, -0.0, 1e22, 5e-324, 1.7976931348623157e308, 1e16, 123456789.0])
    if kind == 4:
        return random.choice(NASTY)
    if kind in (5, 6):
        return "".join(random.choice(ALPHABET) for _ in range(random.randrange(9)))
    return [random_value(random, depth + 1) for _ in range(random.randrange(4))]


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_values_come_back_equal_and_of_their_type(count):
    parser, generator, tried = OverridesParser.create(), random.Random(0), 0
    for _ in range(count):
        value = random_value(generator)
        if problem_of(value) is not None:
            continue
        tried += 1
        parsed = parser.parse_override(override("a.b", value))
        assert not parsed.is_sweep_override()
        config = OmegaConf.create({"a": {"b": None}})
        OmegaConf.update(config, "a.b", parsed.value())
        assert repr(OmegaConf.to_container(config, resolve=True)) == repr({"a": {"b": value}})
    assert tried > 0.97 * count


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_overrides_pass_through_a_shell_as_the_same_bytes(count):
    generator = random.Random(1)
    values = (random_value(generator) for _ in range(count))
    texts = [override("a.b", value) for value in values if problem_of(value) is None]
    for start in range(0, len(texts), 1000):
        batch = texts[start : start + 1000]
        script = f"printf '%s\\0' {shlex.join(batch)}"
        answer = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
        assert answer.stdout.decode().split("\0")[:-1] == batch


NUMBERS = ("0", "-0", "7", "-12", "007", "0.5", "-0.0", "1e5", "1e-05", "3.0e+10", "1.5e300", "1_0")


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_read_without_the_parser_are_those_of_the_parser(text):
    value = OverridesParser.create().parse_override(f"a.b={text}").value()
    (sketch,) = survey([[f"+args.x={text}"]], origin="", measures=(args_x,)).sketches
    assert repr(sketch.measured) == repr((value,))


def args_x(raw):
    return raw["args"]["x"]


GOLDEN = {
    "lr": (3e-05, "lr=3e-05"),
    "a whole number stays one": (16, "lr=16"),
    "words of JSON": ([None, True, False], "lr=[null,true,false]"),
    "a text that looks like a number": ("1e-3", "lr='1e-3'"),
    "an apostrophe": ("it's", r"lr='it\'s'"),
    "backslashes count only before a quote": (r"a\b\'c" + "\\", r"lr='a\b\\\'c\\'"),
    "a list in a list": ([[0.9, 0.95], ["a,b"]], "lr=[[0.9,0.95],['a,b']]"),
    "the value of another key": ("${args.lr}", "lr='${args.lr}'"),
    "relative": ("${.lr}_${..name}", "lr='${.lr}_${..name}'"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_text_of_an_override(name):
    value, text = GOLDEN[name]
    assert override("lr", value) == text


def test_groups_come_first_and_the_order_of_the_file_does_not_matter():
    point = {"model.config.n_layer": 2, "+logging": "wandb", "optimizer": "muon", "+args.x": 1}
    backwards = dict(reversed(point.items()))
    expected = ["+logging='wandb'", "optimizer='muon'", "+args.x=1", "model.config.n_layer=2"]
    groups = ("logging", "model", "optimizer")
    assert overrides(point, groups) == overrides(backwards, groups) == expected


def test_what_cannot_be_an_override_is_refused():
    with pytest.raises(ValueError, match="one line of printable text"):
        override("lr", ["a\rb"])
