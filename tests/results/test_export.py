from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from gptopt.results.export import write_table

TABLE = pd.DataFrame(
    {
        "optimizer": ["muon_max & co", None],
        "loss": [0.1 + 0.2, math.inf],
        "p": [math.nan, 1e-6],
        "n": [3, 4],
    }
)


def test_csv_keeps_every_bit(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "t.csv")
    first = (tmp_path / "t.csv").read_text().splitlines()[1].rsplit(",", 3)
    assert [float(first[1]), first[2], int(first[3])] == [0.1 + 0.2, "", 3]


def test_latex_is_a_tabular_with_escaped_texts(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_text() == (
        "\\begin{tabular}{lrrr}\n\\toprule\noptimizer & loss & p & n \\\\\n\\midrule\n"
        "muon\\_max \\& co & 0.3 &  & 3 \\\\\n & $\\infty$ & 1e-06 & 4 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_parquet_is_what_it_was(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_table(TABLE, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), TABLE)
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.csv, \.parquet, \.tex"):
        write_table(TABLE, tmp_path / "t.xlsx")
