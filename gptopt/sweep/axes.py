"""What varies in a sweep: each key that takes several values, with these."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gptopt.config.problems import show
from gptopt.sweep.generators import is_number, plain
from gptopt.sweep.parts import Sweep

SHOWN = 12
LISTED = 100


@dataclass(frozen=True)
class Axis:
    """A group or dotted path, and its values, in the order of the file; at least two."""

    key: str
    values: list[Any]

    def __str__(self) -> str:
        """Such as ``optimizer.optimizer_params.lr: 3 values: 0.001, 0.002, 0.004``."""
        if len(self.values) > SHOWN and (bounds := self._bounds()):
            words = f"{show(bounds[0])} to {show(bounds[1])}"
        else:
            listed = ", ".join(map(show, self.values[:SHOWN]))
            words = f"{listed}, ..." if len(self.values) > SHOWN else listed
        return f"{self.key}: {len(self.values):,} values: {words}"

    def to_json(self) -> dict[str, Any]:
        """Of more than ``LISTED`` values the first; least and greatest where all are numbers."""
        least, greatest = self._bounds() or (None, None)
        return {
            "key": self.key,
            "count": len(self.values),
            "values": self.values[:LISTED],
            "least": least,
            "greatest": greatest,
        }

    def _bounds(self) -> tuple[float, float] | None:
        return (min(self.values), max(self.values)) if all(map(is_number, self.values)) else None


def axes(sweep: Sweep, given: Collection[str]) -> list[Axis]:
    """The axes of all blocks of the first stage together, without the keys that are ``given``."""
    found: dict[str, dict[str, Any]] = {}
    for grid in sweep.grids:
        for key, values in grid.items():
            if plain(key) not in given:
                found.setdefault(plain(key), {}).update({json.dumps(v): v for v in values})
    return [Axis(key, list(values.values())) for key, values in found.items() if len(values) > 1]
