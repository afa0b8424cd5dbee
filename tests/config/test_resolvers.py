import pytest
from omegaconf import OmegaConf

from gptopt.config import resolvers

resolvers.register()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("int(128 / 8)", 16),
        ("2 ** 10 - 24", 1000),
        ("7 // 2 + 7 % 2", 4),
        ("-3 * (1 + 1)", -6),
        ("1 if 3 > 2 else 0", 1),
        ("max(1, round(2.6), abs(-2))", 3),
        ("min(1e-3, 0.5)", 0.001),
    ],
)
def test_eval_is_arithmetic(expression, value):
    assert OmegaConf.create({"x": f"${{eval:'{expression}'}}"}).x == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "open('x')",
        "[1,2]",
        "a + 1",
        "(1).real",
        "lambda: 1",
        "2 ** 1000",
        "1 +",
    ],
)
def test_eval_refuses_everything_else(expression):
    with pytest.raises(ValueError, match="eval"):
        resolvers.evaluate(expression)


def test_eval_reads_other_keys():
    config = OmegaConf.create({"a": 128, "b": 8, "c": '${eval:"int(${a} / ${b})"}'})
    assert config.c == 16


def test_div_stays_whole_where_it_comes_out_even():
    assert resolvers.divide(524288, 1024) == 512
    assert isinstance(resolvers.divide(524288, 1024), int)
    assert resolvers.divide(1, 2) == 0.5


def test_devices_are_counted_from_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert resolvers.device_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resolvers.device_count() == 0


@pytest.mark.parametrize(
    ("value", "text"), [("0.0", "0"), ("3.0", "3"), ("1e-3", "0.001"), ("7", "7"), ("x", "x")]
)
def test_a_number_has_one_way_to_be_written(value, text):
    config = OmegaConf.create(f"{{a: {value}, name: 'wd-${{num:${{a}}}}'}}")
    assert config.name == f"wd-{text}"


def test_first_is_the_first_that_is_not_null():
    config = OmegaConf.create({"a": None, "b": 0, "c": "${first:${a},${b},7}"})
    assert config.c == 0
    assert resolvers.first(None, None) is None
