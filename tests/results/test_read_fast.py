"""Lines that are read together give what each gives when it is read exactly."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gptopt import layout
from gptopt.results import load, read
from gptopt.results.events import Rows, parse, read_rows

from .rundirs import CONFIG, configure, eval_row, start_row, train_row, write_run


def one_by_one(lines: list[bytes]) -> list[dict]:
    found = (parse(line) for line in lines)
    return [row for row in found if row and row["event"] not in ("start", "stop", "diagnostics")]


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def as_dicts(rows: Rows) -> list[dict]:
    found = []
    for place in range(len(rows)):
        row = {"event": rows.events[rows.event[place]], "step": int(rows.step[place])}
        for name, column in rows.values.items():
            odd = name in rows.measured_nan and rows.measured_nan[name][place]
            if odd or not math.isnan(column[place]):
                row[name] = float(column[place])
        found.append(row)
    return found


def same(found: list[dict], expected: list[dict]) -> bool:
    return repr([sorted(row.items()) for row in found]) == repr(
        [sorted(row.items()) for row in expected]
    )


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.none(),
)
odd_values = st.one_of(
    numbers,
    st.booleans(),
    st.sampled_from(["1.5", "nan", "low", "inf", ""]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["train_loss", "lr"]), st.sampled_from(["nan", "inf", 1, []])),
    st.just(math.nan),
    st.just(-math.inf),
)
names = st.sampled_from(["train_loss", "val_loss", "lr", "nonfinite", "step", "event", "tokens"])
rows = st.one_of(
    st.fixed_dictionaries(
        {
            "event": st.sampled_from(["train", "eval"]),
            "step": st.integers(0, 100),
            "train_loss": numbers,
            "tokens": numbers,
        }
    ),
    st.builds(
        lambda event, step, more: {"event": event, "step": step} | more,
        st.sampled_from(["train", "eval", "start", "stop", "diagnostics", "other", 1, None]),
        odd_values,
        st.dictionaries(names, odd_values, max_size=4),
    ),
    odd_values,
)
pieces = st.sampled_from(
    [
        b'{"event": "train", "step": 1} {"event": "train", "step": 2}',
        b'{"event": "stop", "step": 3, "x": {}}{"event": "train", "step": 1}',
        b'{"event": "train",',
        b'"step": 1}',
        b'{"event": "diagnostics", "step": 1, "x": {}',
        b', "y": {}}',
        b' {"event": "train", "step": 4}\r',
        b"",
    ]
)
lines = st.one_of(rows.map(lambda row: json.dumps(row).encode()), st.binary(max_size=8), pieces)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(lines, max_size=12), st.lists(pieces, max_size=6)))
def test_lines_read_together_equal_lines_read_one_by_one(content: list[bytes]) -> None:
    content = [line for line in content if b"\n" not in line]
    found = read_rows(joined(content), 1)
    assert same(as_dicts(found), one_by_one(content))
    assert found.lost == sum(parse(line) is None for line in content)


@pytest.mark.parametrize(
    "text",
    [
        "1e400",
        "1" + "0" * 400,
        "123456789012345678901234567890",
        "0.1",
        "5e-324",
        "2.2250738585072011e-308",
        "179769313486231580793e289",
        "9007199254740993",
        "18446744073709551615",
        "-0",
        "1.7976931348623157e308",
        "true",
        "NaN",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        '"1_0"',
    ],
)
def test_a_number_is_the_same_however_its_line_is_read(text: str) -> None:
    line = f'{{"event": "train", "step": 1, "x": {text}}}'.encode()
    assert same(as_dicts(read_rows(joined([line, line]), 1)), one_by_one([line, line]))


def test_of_a_name_that_stands_twice_the_last_value_counts() -> None:
    lines = [b'{"event": "train", "step": 1, "x": 1, "x": 2, "step": 3}'] * 2
    assert as_dicts(read_rows(joined(lines), 1)) == [{"event": "train", "step": 3, "x": 2.0}] * 2


def test_diagnostics_have_a_table_of_their_own(tmp_path: Path) -> None:
    nested = {"update_rms": {"blocks.0": 0.2, "blocks.1": None}, "cosine": 0.5}
    logged = [
        start_row(1, 0),
        train_row(10, 4.0),
        {"event": "diagnostics", "step": 10} | nested,
        {"event": "diagnostics", "step": 20, "cosine": 0.7},
        train_row(20, 3.0),
    ]
    again = [start_row(2, 10), {"event": "diagnostics", "step": 20, "cosine": 0.8}]
    write_run(tmp_path / "run", configure("muon", 0.1, 0), [logged, again])
    found = load(tmp_path)
    assert found.metrics["step"].tolist() == [10]
    assert "cosine" not in found.metrics
    rows = found.diagnostics.drop(columns="run_id").itertuples(index=False, name=None)
    assert list(rows) == [
        (1, 10, "update_rms/blocks.0", 0.2),
        (1, 10, "cosine", 0.5),
        (2, 20, "cosine", 0.8),
    ]
    assert set(found.diagnostics["run_id"]) == set(found.runs["run_id"])


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "x: [1,\n2]\n",
        "x: 'a\n\n  b'\n",
        "x: &a {y: 1}\nz: *a\n",
        "model: 3\n",
        "x: |\n  a: 1\n  b\n",
        "x: 2026-01-01\n",
        "---\nx: 1\n",
        "...\n",
        "# a comment\nx: yes\n",
        '"x": 1\n',
        "? x\n: 1\n",
        "x:\n- 1\n- 2\n",
        "x: [1,\n",
    ],
)
def test_a_config_read_by_blocks_equals_the_whole(extra: str) -> None:
    text = yaml.safe_dump(CONFIG) + extra
    by_blocks = read._by_blocks(text)
    if by_blocks:
        assert by_blocks == dict(read._leaves(yaml.safe_load(text)))


def test_the_blocks_of_a_plain_config_are_read_apart() -> None:
    assert read._by_blocks(yaml.safe_dump(CONFIG)) == dict(read._leaves(CONFIG))


def damaged(run: Path, rng: random.Random) -> list[list[dict]]:
    """Writes attempts with torn, foreign and repeated lines; returns the rows that are whole."""
    attempts: list[list[dict]] = []
    start = 0
    for number in range(1, rng.randint(1, 4) + 1):
        rows: list[dict] = [start_row(number, start)]
        for step in range(start + 1, start + rng.randint(1, 8)):
            loss = rng.choice([rng.random(), "nan"]) if rng.random() < 0.2 else rng.random()
            rows.append(train_row(step, loss) if rng.random() < 0.7 else eval_row(step, loss))
        lines: list[tuple[bytes, dict | None]] = []
        for row in rows:
            if rng.random() < 0.1:
                foreign = [b"{\n", b"\n", b"\xff\n", b'{"event": "train"}\n', b"7\n"]
                lines.append((rng.choice(foreign), None))
            line = json.dumps(row).encode() + b"\n"
            lines.append((line[:-2] + b"\n", None) if rng.random() < 0.05 else (line, row))
        content = b"".join(line for line, _ in lines)
        length = len(content) if rng.random() < 0.5 else rng.randint(0, len(content))
        layout.metrics_file(run, number).write_bytes(content[:length])
        ends = itertools.accumulate(len(line) for line, _ in lines)
        attempts.append(
            [row for (_, row), end in zip(lines, ends, strict=True) if row and end <= length]
        )
        start = rng.randint(0, start + 6)
    return attempts


def fuzz(tmp_path: Path, count: int) -> None:
    for number in range(count):
        rng = random.Random(number)
        run = write_run(tmp_path / str(number), configure("adamw", 0.1, number), [])
        attempts = damaged(run, rng)
        found = load(run, cache=False).metrics
        expected = []
        for place, rows in enumerate(attempts):
            firsts = [later[0] for later in attempts[place + 1 :] if later]
            limits = [r["start_step"] if "start_step" in r else r["step"] - 1 for r in firsts]
            expected += [
                (place + 1, r["event"], r["step"], r.get("train_loss", r.get("val_loss")))
                for r in rows
                if r["event"] != "start" and r["step"] <= min(limits, default=math.inf)
            ]
        losses = np.where(found["event"] == "train", found["train_loss"], found["val_loss"])
        logged = zip(found["attempt"], found["event"], found["step"], losses, strict=True)
        assert [(*r[:3], None if math.isnan(r[3]) else float(r[3])) for r in logged] == expected


def test_300_damaged_runs_give_their_whole_rows(tmp_path: Path) -> None:
    fuzz(tmp_path, 300)


@pytest.mark.slow
def test_5000_damaged_runs_give_their_whole_rows(tmp_path: Path) -> None:
    fuzz(tmp_path, 5000)
