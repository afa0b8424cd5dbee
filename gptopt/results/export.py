"""Tables as files: CSV, Parquet, LaTeX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from gptopt import files
from gptopt.results.select import shown

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".tex")
_ESCAPED = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes ``table`` in the format that the suffix of ``path`` names; the index is left out.

    Args:
        table: Any table of this package.
        path: Ends in .csv, .parquet (needs pyarrow) or .tex (a booktabs tabular, texts escaped).
            Replaced when it exists, its directory is made. CSV keeps every bit of a number, LaTeX
            four significant digits; in Parquet a column of numbers and texts is one of texts.

    Raises:
        ValueError: Another suffix, or Parquet without pyarrow.
    """
    if path.suffix in SUFFIXES:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        files.write(path, table.to_csv(index=False))
    elif path.suffix == ".tex":
        files.write(path, _latex(table))
    elif path.suffix == ".parquet":
        _write_parquet(table, path)
    else:
        raise ValueError(f"{path}: a table is written as {', '.join(SUFFIXES)}.")


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    # a column has one type there
    mixed = {str(name): column.map(shown) for name, column in table.items() if _is_mixed(column)}
    try:
        table.assign(**mixed).to_parquet(temporary, index=False)
        temporary.replace(path)
    except ImportError as error:
        raise ValueError(f"{path}: Parquet needs pyarrow: pip install pyarrow.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _is_mixed(column: pd.Series) -> bool:
    """Whether numbers, texts, and true and false stand side by side."""
    kinds = {bool: "switch", str: "text"}
    return column.dropna().map(lambda value: kinds.get(type(value), "number")).nunique() > 1


def _latex(table: pd.DataFrame) -> str:
    cells = [[_escape(value) for value in row] for row in table.itertuples(index=False)]
    kinds = "".join("r" if kind.kind in "iuf" else "l" for kind in table.dtypes)
    lines = [[_escape(str(name)) for name in table.columns], *cells]
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    rows = ["\\begin{tabular}{" + kinds + "}", "\\toprule", head, "\\midrule", *body]
    return "\n".join([*rows, "\\bottomrule", "\\end{tabular}", ""])


def _escape(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.4g}" if math.isfinite(value) else rf"${'-' * (value < 0)}\infty$"
    text = "" if value is None else str(value)
    return "".join(_ESCAPED.get(letter, letter) for letter in text)
