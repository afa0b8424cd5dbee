"""Which runs are meant: ``optimizer=muon,lr=0.01|0.02``.

Commas stand between conditions that all hold, bars between values of which one holds. A key is a
column of the table of runs, or the end of one: ``max_grad_norm``, ``aux.lr``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from gptopt.config.problems import nearest
from gptopt.results.columns import TRIAL, below

if TYPE_CHECKING:
    import pandas as pd

    from gptopt.results.runs import Runs

SHOWN = 12
ABSENT = "null"


@dataclass(frozen=True)
class Selection:
    """Conditions on the columns of the table of runs.

    Attributes:
        text: As it was typed.
        wanted: Values of which one holds, by key.
    """

    text: str
    wanted: dict[str, tuple[str, ...]]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Reads ``key=value|value,key=value``.

        Raises:
            ValueError: Something in it is no condition, or a key stands there twice.
        """
        wanted: dict[str, tuple[str, ...]] = {}
        for part in text.split(","):
            key, sign, values = (word.strip() for word in part.partition("="))
            if not (key and sign and values) or key in wanted:
                raise ValueError(
                    f"{text!r}: {part.strip()!r} is no condition; write key=value,key=value|value,"
                    " each key once."
                )
            wanted[key] = tuple(value.strip() for value in values.split("|"))
        return cls(text, wanted)

    def columns(self, runs: pd.DataFrame) -> dict[str, str]:
        """The column that each key means.

        Raises:
            ValueError: A key is no column, or the end of several.
        """
        return {key: column_of(key, runs) for key in self.wanted}

    def mark(self, runs: pd.DataFrame) -> pd.Series:
        """True for each row of ``runs`` that fulfils all conditions.

        Raises:
            ValueError: As ``columns``.
        """
        found = runs["run_id"].notna()
        for key, column in self.columns(runs).items():
            found &= runs[column].map(lambda value, key=key: _is_one(value, self.wanted[key]))
        return found

    def of(self, runs: Runs) -> Runs:
        """The runs that fulfil all conditions.

        Raises:
            ValueError: There is none; what there is instead is said. As ``columns``.
        """
        chosen = self.mark(runs.runs)
        if chosen.any():
            return runs.only(chosen)
        for key, column in self.columns(runs.runs).items():
            if not any(_is_one(value, self.wanted[key]) for value in runs.runs[column]):
                known = list(dict.fromkeys(map(shown, runs.runs[column])))
                wanted = "|".join(self.wanted[key])
                more = ", …" if len(known) > SHOWN else ""
                raise ValueError(
                    f"{self.text}: no run has {key}={wanted}.{nearest(wanted, known)} The runs"
                    f" have: {', '.join(known[:SHOWN])}{more}."
                )
        raise ValueError(f"{self.text}: no run fulfils all of it together.")


def column_of(key: str, runs: pd.DataFrame) -> str:
    """The column that ``key`` names or is the end of.

    Raises:
        ValueError: There is none, or several; the nearest ones are said.
    """
    columns = list(map(str, runs))
    if key in columns:
        return key
    ends = [column for column in columns if column.endswith(f".{key}")]
    ends = [column for column in ends if below(column, TRIAL)] or ends
    fewest = min((column.count(".") for column in ends), default=0)
    ends = [column for column in ends if column.count(".") == fewest]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(f"{key!r} may mean {' or '.join(ends)}; write one of them.")
    short = {column.rsplit(".", 1)[-1]: column for column in columns}
    raise ValueError(f"No run has a setting {key!r}.{nearest(key, [*short, *columns])}")


def _is_one(value: Any, wanted: tuple[str, ...]) -> bool:
    return any(_is(value, text) for text in wanted)


def _is(value: Any, text: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return shown(value).lower() == text.lower()
    try:
        return float(text) == value
    except ValueError:
        return False


def shown(value: Any) -> str:
    """A cell of a table as people write it; equal for 8 and 8.0, and for what is absent."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return f"{value:.12g}" if is_number else str(value)


def brief(number: float) -> str:
    """A number in six digits, or that it is absent: for sentences and labels."""
    return ABSENT if math.isnan(number) else f"{number:g}"
