"""The metrics file: what is in it after good and bad days."""

import json
import math
import os
import struct
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptopt.tracking import metrics
from gptopt.tracking.metrics import MetricsFile, decode, encode


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.text()))
def test_rows_are_strict_json_and_keep_every_bit(values):
    row = {"event": "train", **{f"x{k}": v for k, v in values.items()}}
    line = encode(row)
    assert line.count(b"\n") == 1
    json.loads(line, parse_constant=refuse)
    for key, value in decode(line).items():
        if isinstance(value, float) and not math.isnan(value):
            assert struct.pack("d", value) == struct.pack("d", row[key])
        else:
            assert repr(value) == repr(row[key])


def test_a_number_that_json_has_not_is_null_and_named():
    row = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1}
    assert encode(row) == (
        b'{"a": null, "b": null, "c": null, "d": 0.1, '
        b'"nonfinite": {"a": "nan", "b": "inf", "c": "-inf"}}\n'
    )


def test_a_row_is_one_write_and_readable_at_once(tmp_path, monkeypatch):
    calls = []
    write = os.write

    def spy(descriptor, data):
        calls.append(bytes(data))
        return write(descriptor, data)

    file = MetricsFile(tmp_path / "m.jsonl")
    monkeypatch.setattr(os, "write", spy)
    for step in range(3):
        file.write({"step": step})
        assert calls[-1] == b'{"step": %d}\n' % step
        assert (tmp_path / "m.jsonl").read_bytes() == b"".join(calls)
    assert len(calls) == 3
    file.close()


def test_the_disk_is_asked_every_five_seconds_and_on_demand(tmp_path, monkeypatch):
    now, synced = [100.0], []
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(metrics.os, "fsync", lambda descriptor: synced.append(now[0]))
    file = MetricsFile(tmp_path / "m.jsonl")
    for second in range(13):
        now[0] = 100.0 + second
        file.write({"step": second})
    assert synced == [105.0, 110.0]
    file.sync()
    assert synced[-1] == 112.0


def run_with_small_files(tmp_path, code):
    """Runs ``code`` where a file takes 100 bytes: the first write beyond is cut, others fail."""
    header = """
        import logging, resource, sys
        from pathlib import Path
        from gptopt.tracking.metrics import MetricsFile
        logging.basicConfig(format="%(levelname)s %(message)s")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        file = MetricsFile(Path(sys.argv[1]))
        rows = [{"step": step, "train_loss": 1 / (step + 1)} for step in range(20)]
    """
    script = textwrap.dedent(header) + textwrap.dedent(code)
    command = [sys.executable, "-c", script, str(tmp_path / "m.jsonl")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_rows_wait_for_a_full_disk_and_none_is_lost(tmp_path):
    answer = run_with_small_files(
        tmp_path,
        """
        for row in rows[:10]:
            file.write(row)
        print(file.unwritten)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        for row in rows[10:]:
            file.write(row)
        print(file.unwritten)
        file.close()
        """,
    )
    assert answer.returncode == 0, answer.stderr
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    fitted = "\n".join(lines)[:100].count("\n")  # whole lines in the first 100 bytes
    assert 0 < fitted < 10
    assert answer.stdout.split() == [str(10 - fitted), "0"]
    assert [json.loads(line) for line in lines] == [
        {"step": step, "train_loss": 1 / (step + 1)} for step in range(20)
    ]
    assert answer.stderr.count("WARNING") == 1


def test_sync_and_close_tell_that_rows_are_not_on_the_disk(tmp_path):
    answer = run_with_small_files(
        tmp_path,
        """
        for row in rows:
            file.write(row)
        for method in (file.sync, file.close):
            try:
                method()
            except OSError as error:
                print(error.errno)
        """,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.split()) == 2


def test_rows_of_a_killed_process_are_in_its_file(tmp_path):
    answer = run_with_small_files(
        tmp_path, "file.write(rows[0]); import os; os.kill(os.getpid(), 9)"
    )
    assert answer.returncode == -9
    assert (tmp_path / "m.jsonl").read_bytes() == b'{"step": 0, "train_loss": 1.0}\n'


def test_the_file_is_not_for_everybody(tmp_path):
    before = os.umask(0)
    try:
        MetricsFile(tmp_path / "m.jsonl").close()
    finally:
        os.umask(before)
    assert (tmp_path / "m.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_missing_directory_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        MetricsFile(tmp_path / "absent" / "m.jsonl")
