"""The gptopt command: whole sweeps of tiny runs on this machine, and its answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import POINT as TINY

from gptopt import layout, results
from gptopt.cli import main


@pytest.fixture
def gptopt(tmp_path, monkeypatch):
    """Runs a command of gptopt in an empty directory; returns (exit code, output)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_CONF", raising=False)

    def gptopt(*arguments):
        answer = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert answer.exception is None or isinstance(answer.exception, SystemExit)
        return answer.exit_code, answer.output

    return gptopt


def write(content):
    file = Path("it's a sweep.json")
    file.write_text(json.dumps(content))
    return file


def test_a_sweep_runs_what_is_missing_and_a_failing_run_costs_one_run(gptopt, monkeypatch):
    lost = {"data": "text", "data.path": "lost.txt", "data.val_split": 0.1}
    plain = {key: value for key, value in TINY.items() if not key.startswith("data")}
    grammar = {key: value for key, value in TINY.items() if key.startswith("data")}
    file = write(plain | {"steps": 3, "$each": [grammar | {"lr": [0.001, 1e9]}, lost]})

    with monkeypatch.context() as later:  # the file is lost after it was looked at
        later.setattr("gptopt.cli.launch.check_data", lambda plan: None)
        code, said = gptopt("sweep", "submit", file, "--via", "local", "cluster.workers=3")
    assert code == 1
    assert said.startswith("3 runs: 3 to do\n")
    assert "exit code 65" in said
    assert len(list(Path("outputs").rglob("completed.json"))) == 1
    assert len(list(Path("outputs").rglob("diverged.json"))) == 1
    record = next(Path("logs").glob("*/run_info_1"))
    assert "lost.txt" in (record / "logs" / "2.log").read_text()

    Path("data").mkdir()
    Path("data/lost.txt").write_text("found again " * 2000)
    reported = {}
    monkeypatch.setattr(results, "report", lambda runs, out: reported.update({out: runs}) or out)
    code, said = gptopt("sweep", "submit", file, "--via", "local", "--report")
    assert (code, said.splitlines()[0]) == (0, "3 runs: 1 completed, 1 diverged, 1 to do")
    assert "[1/1]" in said
    assert said.endswith("report: reports/it_s_a_sweep\n")
    ((out, runs),) = reported.items()
    assert out == Path("reports/it_s_a_sweep")
    assert {run / "completed.json" for run in runs} >= set(Path.cwd().rglob("completed.json"))

    before = sorted(Path().rglob("*"))
    code, said = gptopt("sweep", "submit", file, "--via", "local")
    assert (code, said) == (0, "3 runs: 2 completed, 1 diverged, nothing to do\n")
    assert sorted(Path().rglob("*")) == before

    code, said = gptopt("sweep", "status", record)
    assert said.splitlines()[-1] == "3 runs: 2 completed, 1 diverged, nothing to do"
    assert gptopt("sweep", "status", file)[1].splitlines()[-1] == said.splitlines()[-1]

    code, said = gptopt("results", "table", "outputs", "--out", "table.csv")
    assert (code, len(Path("table.csv").read_text().splitlines())) == (0, 4)
    sweeps = {json.loads(run.read_text())["sweep"] for run in Path("outputs").rglob("run.json")}
    assert sweeps == {layout.safe_name(file.stem)}


def test_ctrl_c_saves_every_run_and_the_same_command_finishes_them(gptopt, tmp_path):
    file = write(TINY | {"steps": 1500, "lr": [0.001, 0.002]})
    command = [sys.executable, "-m", "gptopt.cli", "sweep", "submit", file, "--via", "local"]
    sweep = subprocess.Popen(
        [*command, "cluster.workers=2"], stdout=subprocess.PIPE, text=True, process_group=0
    )
    patience = time.monotonic() + 60
    while len(list(Path("outputs").rglob("metrics.0001.jsonl"))) < 2:
        assert time.monotonic() < patience
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
    said, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 75, said
    assert said.splitlines()[-1] == "2 runs: 2 to do (2 interrupted before)"
    saved = {path.parent.parent: path.name for path in Path("outputs").rglob("checkpoints/step-*")}
    assert len(saved) == 2

    assert gptopt("sweep", "submit", file, "--via", "local", "cluster.workers=2")[0] == 0
    for run, name in saved.items():
        assert (run / "completed.json").is_file()
        first = json.loads((run / "metrics.0002.jsonl").read_text().splitlines()[0])
        assert first["start_step"] == int(name.removeprefix("step-"))


def test_m_finds_done_what_a_sweep_file_did(gptopt):
    file = write(TINY | {"steps": 2, "seed": [0, 1]})
    assert gptopt("sweep", "submit", file, "--via", "local")[0] == 0
    runs = sorted(path.parent for path in Path("outputs").rglob("completed.json"))
    before = {run: (run / "completed.json").stat().st_mtime_ns for run in runs}
    aliases = json.loads((layout.PROJECT / "gptopt/sweep/aliases.json").read_text())
    values = [f"{aliases.get(key, key)}={value}" for key, value in TINY.items()]
    values += [f"{aliases['steps']}=2", f"{aliases['seed']}=0,1"]
    subprocess.run([sys.executable, layout.ENTRY, "-m", *values], check=True)
    assert sorted(path.parent for path in Path("outputs").rglob("completed.json")) == runs
    assert {run: (run / "completed.json").stat().st_mtime_ns for run in runs} == before
    links = sorted(path.resolve() for path in Path("multirun").rglob("*") if path.is_symlink())
    assert links == [run.resolve() for run in runs]


def test_a_dry_run_starts_nothing(gptopt, tmp_path):
    file = write({"seed": [0, 1]})
    code, said = gptopt("sweep", "submit", file, "--dry-run")
    assert (code, said.splitlines()[0]) == (0, "2 runs: 2 to do")
    assert gptopt("sweep", "plan", file) == (code, said)
    assert list(tmp_path.iterdir()) == [tmp_path / file]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"sed": 0}, [], "/sed: there is no such key. Did you mean 'seed'?"),
        ({"lr": "abc"}, [], "optimizer.optimizer_params.lr='abc': it takes a number"),
        ({"seed": [0, 1, 2]}, ["--max", "2"], "3 runs; raise the limit of 2 with --max"),
        ({"seed": 0}, ["optimizer.optimizer_params.lrr=1"], "Did you mean 'lr'?"),
        ({"seed": 0}, ["--cluster", "slrum"], "Did you mean 'slurm'?"),
        ({"seed": 0}, ["--via", "submitit"], "no sbatch on the PATH"),
        ({"seed": 0}, ["--via", "slurm"], "is not one of 'auto', 'local', 'submitit'"),
    ],
)
def test_a_wrong_submission_ends_with_2_and_creates_nothing(
    gptopt, tmp_path, monkeypatch, content, arguments, message
):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    file = write(content)
    code, said = gptopt("sweep", "submit", file, *arguments)
    assert code == 2
    assert message in said
    assert list(tmp_path.iterdir()) == [tmp_path / file]


def test_a_report_is_not_promised_for_runs_in_a_queue(gptopt):
    file = write({"seed": 0})
    code, said = gptopt("sweep", "submit", file, "--report", "cluster.backend=submitit")
    assert (code, "jobs in a queue are not waited for" in said) == (2, True)


def test_bad_data_ends_with_65(gptopt):
    code, said = gptopt("data", "prepare", "nowhere.txt", "--out", "shards", "--tokenizer", "bytes")
    assert (code, "nowhere.txt: no such file" in said) == (65, True)


def test_documents_become_shards(gptopt):
    Path("text.txt").write_text("some words")
    Path("more.txt").write_text("some others")
    options = ["--out", "shards", "--tokenizer", "bytes", "--val-share", "0.5"]
    code, said = gptopt("data", "prepare", "text.txt", "more.txt", *options)
    assert code == 0, said
    assert "shards: 11 tokens to train on, 12 held out\n" in said


@pytest.mark.parametrize("name", ["plain", "it's a directory"])
def test_submit_sh_works_from_anywhere(tmp_path, name):
    directory = tmp_path / name
    directory.mkdir()
    (directory / "my sweep.json").write_text('{"seed": [0, 1]}')
    script = layout.PROJECT / "slurm_scripts" / "submit.sh"
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    answer = subprocess.run(
        [script, "my sweep.json", "--dry-run"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stdout.splitlines()[0]) == (0, "2 runs: 2 to do"), answer
