"""Types of configuration values: what the schema and the ``build`` signatures are written in.

An optimizer's or model's file annotates its keys with these, so a wrong value is
answered from the annotation alone, before that file (and torch) is ever imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Range:
    """Bounds of a number: greater than ``gt``, at least ``ge``, below ``lt``, at most ``le``."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __str__(self) -> str:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        bounds = {name: getattr(self, name) for name in words}
        return " and ".join(f"{words[n]} {b}" for n, b in bounds.items() if b is not None)

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside; a NaN never does."""
        return (
            value == value
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )


PositiveInt = Annotated[int, Range(ge=1)]
Count = Annotated[int, Range(ge=0)]
Seed = Annotated[int, Range(ge=0, lt=2**32)]
"""What every generator of random numbers takes."""
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Fraction = Annotated[float, Range(ge=0, le=1)]
PositiveFraction = Annotated[float, Range(gt=0, le=1)]
Share = Annotated[float, Range(gt=0, lt=1)]
"""Part of a run: 0.1 of 1,000 steps is 100 steps."""
Decay = Annotated[float, Range(ge=0, lt=1)]
"""Decay of a moving average: momentum, betas."""
Probability = Annotated[float, Range(ge=0, lt=1)]
Cadence = Annotated[int | float, Range(gt=0)]
"""Steps, when whole; a share of the run, when below 1."""
Betas = tuple[Decay, Decay]
Role = Literal["matrix", "embedding", "head", "vector"]
"""What a parameter is in its model: a hidden matrix, an embedding, the head, or a vector."""
PolarMethod = Literal["newton_schulz", "polar_express", "svd"]
"""How an optimizer computes the orthogonal polar factor of a matrix."""
ProductDtype = Literal["bfloat16", "float32", "float64"]
"""What its matrix products are computed in."""
