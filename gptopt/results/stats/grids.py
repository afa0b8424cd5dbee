"""Which learning rates a best trial is the best of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Trial = Mapping[str, Any]
"""A row of ``stats.trials``."""


def rate_grid(tried: Sequence[Trial], best: Trial) -> list[float]:
    """The learning rates that were tried with the other settings of ``best``, rising.

    What goes along with the rate does not set a trial apart: a number that has another value at
    each rate, such as a zipped weight decay, and a second rate in the same ratio to it. Where no
    two trials agree in all else, settings were drawn, and those that agree in all that is no
    number count.

    Args:
        tried: The trials of one optimizer that have a result.
        best: One of them.
    """
    names = [name for name in best["settings"] if not goes_along(name, tried)]
    if all(len(_kinds(tried, names, ratios=ratios)) == len(tried) for ratios in (False, True)):
        names = [name for name in names if not _are_numbers(name, tried)]
    alike = [one for one in tried if all(_agrees(name, one, best) for name in names)]
    return sorted({float(one["lr"]) for one in alike if not math.isnan(one["lr"])})


def _kinds(tried: Sequence[Trial], names: Sequence[str], *, ratios: bool) -> set[tuple[str, ...]]:
    """What ``tried`` have in these settings; second rates, if so wanted, as ratios to the first."""
    return {
        tuple(
            f"{one['settings'][name] / one['lr']:.6g}"
            if ratios and one["lr"] and _is_rate(name) and _are_numbers(name, (one,))
            else str(one["settings"][name])
            for name in names
        )
        for one in tried
    }


def _agrees(name: str, one: Trial, best: Trial) -> bool:
    own, other = one["settings"][name], best["settings"][name]
    if str(own) == str(other):
        return True
    is_ratio = _is_rate(name) and _are_numbers(name, (one, best))
    return is_ratio and math.isclose(own * best["lr"], other * one["lr"])


def goes_along(name: str, tried: Sequence[Trial]) -> bool:
    """Whether a number has one value at each rate and another one at every other rate."""
    if not _are_numbers(name, tried):
        return False
    pairs = {(one["lr"], one["settings"][name]) for one in tried}
    return len(pairs) == len({lr for lr, _ in pairs}) == len({value for _, value in pairs})


def _is_rate(name: str) -> bool:
    return name.rpartition(".")[2].endswith("lr")


def _are_numbers(name: str, tried: Sequence[Trial]) -> bool:
    values = [one["settings"][name] for one in tried]
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )
