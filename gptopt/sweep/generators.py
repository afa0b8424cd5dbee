"""Values that are made rather than listed: evenly spaced, drawn, or around a centre.

An axis is a list of partial points over the same keys. A plain list of learning rates is one,
and so are paired values, the draws of a random search and a star: a sweep is a product of axes.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gptopt.config.problems import nearest, show

SPACED = ("log", "lin")
DRAWN = ("loguniform", "uniform")
METHODS = ("halton", "random")
MOST = 10_000
"""Values of one generator, points of one sample."""

Point = dict[str, Any]
"""Config group or dotted path (``+`` and ``++`` kept) -> the value of one run."""
Axis = list[Point]


@dataclass(frozen=True)
class Times:
    """A value that is known once the stage before has ended: ``factor`` times the carried one."""

    factor: float

    def of(self, carried: float) -> float:
        """The value, rounded to six digits; a whole number stays one where it can."""
        if self.factor == 1:
            return carried
        value = float(f"{carried * self.factor:.6g}")
        return int(value) if isinstance(carried, int) and value.is_integer() else value


@dataclass(frozen=True)
class Interval:
    """Values between two bounds, of which a sample draws; evenly in the logarithm or not."""

    paths: tuple[str, ...]
    lo: float
    hi: float
    is_log: bool

    def at(self, share: float) -> Point:
        """The value that has this share, in [0, 1), of the interval below it."""
        return dict.fromkeys(self.paths, _between(self.lo, self.hi, share, self.is_log))


def spaced(name: str, given: Any) -> list[float]:
    """``{"log": [lo, hi, n]}`` or ``{"lin": [lo, hi, n]}``: n values, both ends included.

    Values between the ends are rounded to six digits. Where both ends are whole numbers, so is
    every value that happens to be one.

    Raises:
        ValueError: It gives no such values; the message says what it takes.
    """
    if not isinstance(given, list) or len(given) != 3:
        raise ValueError(f'{{"{name}": {show(given)}}}: it takes [lo, hi, n].')
    lo, hi = _bounds(name, given[:2])
    count = given[2]
    if not _is_whole(count) or not 2 <= count <= MOST:
        raise ValueError(
            f"n={show(count)}: it takes a whole number of values from 2 to {MOST:,}, ends included."
        )
    shares = (step / (count - 1) for step in range(1, count - 1))
    values = [given[0], *(_between(lo, hi, share, name == "log") for share in shares), given[1]]
    if isinstance(given[0], int) and isinstance(given[1], int):
        return [int(value) if value == int(value) else value for value in values]
    return values


def factors(given: Any) -> list[Times]:
    """``{"times": [0.5, 1, 2]}``.

    Raises:
        ValueError: It is no list of factors; the message says what it takes.
    """
    if not isinstance(given, list) or not given:
        raise ValueError(f'{{"times": {show(given)}}}: it takes a list of factors, as [0.5, 1, 2].')
    for factor in given:
        if not is_number(factor) or factor <= 0:
            raise ValueError(f"{show(factor)}: a factor is a number above 0.")
    return [Times(factor) for factor in given]


def interval(name: str, given: Any, paths: tuple[str, ...]) -> Interval:
    """``{"loguniform": [lo, hi]}`` or ``{"uniform": [lo, hi]}``.

    Raises:
        ValueError: It is no interval; the message says what it takes.
    """
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError(f'{{"{name}": {show(given)}}}: it takes [lo, hi].')
    return Interval(paths, *_bounds(name, given), name == "loguniform")


def top(given: Any) -> float:
    """``$top``: how many points are carried on (an int), or which share of them (a float).

    Raises:
        ValueError: It is neither; the message says what it takes.
    """
    is_share = isinstance(given, float) and 0 < given < 1
    if not is_share and not (_is_whole(given) and given > 0):
        message = "it takes a number of points, 1 or more, or a share of them between 0 and 1."
        raise ValueError(f"{show(given)}: {message}")
    return float(given) if is_share else int(given)


@dataclass(frozen=True)
class Sample:
    """How many points are drawn, and how. More points keep those that were drawn before."""

    n: int
    method: str
    seed: int | None

    def draw(self, axes: Sequence[Axis | Interval]) -> Axis:
        """``n`` points with a value of every axis. Of a list, each choice is as likely."""
        return [
            {
                key: value
                for axis, share in zip(axes, shares, strict=True)
                for key, value in _pick(axis, share).items()
            }
            for shares in itertools.islice(self._shares(len(axes)), self.n)
        ]

    def _shares(self, dimensions: int) -> Iterator[list[float]]:
        if self.method == "halton":
            return halton(dimensions, self.seed)
        numbers = random.Random(self.seed)
        return ([numbers.random() for _ in range(dimensions)] for _ in itertools.count())


def sample_of(given: Any) -> Sample:
    """``$sample``: a number of points, or ``{"n": 20, "method": "random", "seed": 0}``.

    Raises:
        ValueError: It is neither; the message says what it takes.
    """
    settings = given if isinstance(given, dict) else {"n": given}
    known = ("n", "method", "seed")
    for key in settings:
        if key not in known:
            raise ValueError(
                f"there is no setting {key!r}.{nearest(key, known)} It takes: {', '.join(known)}."
            )
    count: Any = settings.get("n")
    method: Any = settings.get("method", "halton")
    seed: Any = settings.get("seed")
    if not _is_whole(count) or not 1 <= count <= MOST:
        raise ValueError(f"n={show(count)}: it takes a whole number of points, 1 to {MOST:,}.")
    if method not in METHODS:
        raise ValueError(f"method={show(method)}: it takes {' or '.join(map(repr, METHODS))}.")
    if seed is not None and (not _is_whole(seed) or seed < 0):
        raise ValueError(f"seed={show(seed)}: it takes a whole number from 0.")
    if method == "random" and seed is None:
        raise ValueError('random draws need a "seed", so that planning again gives the same runs.')
    return Sample(count, method, seed)


def halton(dimensions: int, seed: int | None) -> Iterator[list[float]]:
    """The Halton sequence in [0, 1)^dimensions, from its second point on: the first is all zeros.

    Any b^k points in a row fill each of the b^k equal parts of the dimension of base b once.

    Args:
        dimensions: One prime base for each, in rising order.
        seed: Permutes the digits other than zero, which parts the dimensions of large bases;
            without it they rise together at first.
    """
    primes = (n for n in itertools.count(2) if all(n % d for d in range(2, math.isqrt(n) + 1)))
    digits = [_digits(base, seed) for base in itertools.islice(primes, dimensions)]
    for index in itertools.count(1):
        yield [_mirrored(index, of_base) for of_base in digits]


def star(centre: Point, axes: Sequence[Axis]) -> Axis:
    """The centre, then every other value of every axis with all else at the centre."""
    return [
        centre,
        *(
            centre | row
            for axis in axes
            for row in axis
            if not all(same(value, centre[key]) for key, value in row.items())
        ),
    ]


def without(axis: Axis, paths: set[str]) -> Axis:
    """An axis without some of its keys; what they alone told apart is there once."""
    if not any(plain(key) in paths for row in axis for key in row):
        return axis
    rows = [{key: value for key, value in row.items() if plain(key) not in paths} for row in axis]
    return list({identity(row): row for row in rows if row}.values())


def identity(point: Point) -> str:
    """Equal for points with the same values, in whatever order."""
    return json.dumps(point, sort_keys=True, default=repr)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain(key: str) -> str:
    """A key without the ``+`` that lets it add to the config."""
    return key.lstrip("+")


def same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 is 1.0, but true is not 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _bounds(name: str, given: Sequence[Any]) -> tuple[float, float]:
    for bound in given:
        if not is_number(bound):
            raise ValueError(f"{show(bound)}: lo and hi take numbers.")
    try:
        lo, hi = map(float, given)
    except OverflowError:
        raise ValueError("lo and hi take numbers of at most 1e308.") from None
    if not lo < hi:
        raise ValueError(f"lo={show(given[0])}, hi={show(given[1])}: lo must be below hi.")
    if name.startswith("log") and lo <= 0:
        raise ValueError(f"lo={show(given[0])}: a logarithm needs lo above 0.")
    return lo, hi


def _between(lo: float, hi: float, share: float, is_log: bool) -> float:
    if is_log:
        value = math.exp((1 - share) * math.log(lo) + share * math.log(hi))
    else:
        value = (1 - share) * lo + share * hi
    return min(max(float(f"{value:.6g}"), lo), hi)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pick(axis: Axis | Interval, share: float) -> Point:
    return axis.at(share) if isinstance(axis, Interval) else axis[int(share * len(axis))]


def _digits(base: int, seed: int | None) -> list[int]:
    if seed is None:
        return list(range(base))
    numbers = random.Random(f"{seed}/{base}")
    # Sorted rather than shuffled: Python promises the same random() in all versions, no more.
    return [0, *sorted(range(1, base), key=lambda _: numbers.random())]


def _mirrored(index: int, digits: Sequence[int]) -> float:
    """The digits of ``index`` behind the point: 6 = 110 in base 2 gives 0.011 = 3/8."""
    share, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, len(digits))
        scale /= len(digits)
        share += digits[digit] * scale
    return share
