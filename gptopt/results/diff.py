"""In what two runs differ: settings, code, environment, start, and where the curves part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gptopt.results.columns import RUN_NUMBERS, RUN_TEXTS, below
from gptopt.results.runs import Runs, records
from gptopt.results.select import shown

if TYPE_CHECKING:
    import pandas as pd

CHAPTERS = {
    "code": ("run.git", "run.optimizer_code", "run.versions", "run.imported_from"),
    "environment": ("run.host", "run.device", "run.threads", "run.slurm"),
    "starting point": ("run.fingerprints", "run.parameters"),
}
SILENT = (
    "run.run_id",
    "run.run_name",
    "run.instance",
    "run.sweep",
    "run.command",
    "derived",
    "paths",
)
"""Follow from the settings, or only say where the run lies."""
CURVES = ("train_loss", "val_loss")


def diff(a: Runs, b: Runs) -> list[str]:
    """The differences of two runs, chapter by chapter, and the first step of unequal losses.

    Args:
        a, b: One run each.
    """
    (one,), (other,) = records(a.runs), records(b.runs)
    lines = [f"A  {one['path']}", f"B  {other['path']}"]
    keys = [key for key in dict.fromkeys([*one, *other]) if key not in RUN_TEXTS | RUN_NUMBERS]
    chapters = {
        "settings": [key for key in keys if not below(key, ("run", *SILENT))],
        **{name: [key for key in keys if below(key, nodes)] for name, nodes in CHAPTERS.items()},
    }
    for name, listed in chapters.items():
        lines += _chapter(name, one, other, listed)
    lines.append("curves:")
    for name in CURVES:
        lines.append(f"  {_parting(name, a.metrics, b.metrics)}")
    return lines


def _chapter(
    name: str, a: Mapping[str, Any], b: Mapping[str, Any], keys: Iterable[str]
) -> list[str]:
    pairs = {key: (shown(a.get(key)), shown(b.get(key))) for key in keys}
    unlike = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    if not unlike:
        return [f"{name}: the same"]
    return [f"{name}:", *(f"  {key}: {left} | {right}" for key, (left, right) in unlike.items())]


def _parting(name: str, a: pd.DataFrame, b: pd.DataFrame) -> str:
    """The first step at which both measured ``name`` and got different numbers."""
    one, other = (
        rows[rows[name].notna()].drop_duplicates("step").set_index("step")[name] for rows in (a, b)
    )
    common = one.index.intersection(other.index).tolist()
    if not common:
        return f"{name}: no step that both measured"
    pairs = list(zip(common, one.loc[common].tolist(), other.loc[common].tolist(), strict=True))
    unequal = [(step, left, right) for step, left, right in pairs if left != right]
    if not unequal:
        return f"{name}: equal to the last bit at all {len(common)} steps that both measured"
    (step, left, right), (last, *end) = unequal[0], pairs[-1]
    return (
        f"{name}: first differs at step {step}: {left:.6g} | {right:.6g};"
        f" last common step {last}: {end[0]:.6g} | {end[1]:.6g}"
    )
