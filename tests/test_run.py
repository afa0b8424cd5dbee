"""What one command does with one directory, the first time and every time after."""

import errno
import json
import shutil
import subprocess
import sys
from unittest import mock

import pytest
import torch
import yaml
from tiny import (
    SETTINGS,
    checkpoints,
    end,
    flip_byte,
    in_step,
    marker,
    result,
    rows,
    snapshot,
    start,
    state_file,
    status,
    stopped_at,
    tiny,
)

import gptopt
from gptopt import files, layout
from gptopt.checkpoint import StorageError
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError
from gptopt.data import DataError
from gptopt.lease import BusyError, CannotCreateError, Lease
from gptopt.run import execute, exit_code_of
from gptopt.state import ExitCode, read_state

SHORT = "training.training_params.max_steps=4"


def command_line(output, *overrides):
    """Runs run_hydra.py in a process of its own; returns what it said and what it imported."""
    command = [sys.executable, "-X", "importtime", str(layout.ENTRY), *SETTINGS, *overrides]
    ended = subprocess.run(
        [*command, f"paths.output_dir={output}"], capture_output=True, text=True, cwd=output.parent
    )
    lines = ended.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    assert ended.returncode == 0, said
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    return "\n".join(said), imported


def raising(error):
    """While entered, the training loop fails with ``error`` in its second step."""

    def fail():
        raise error

    return in_step(2, fail)


# --- completed ----------------------------------------------------------------------------------


def test_a_run_leaves_the_files_that_layout_names(tmp_path):
    run = gptopt.train(tiny(tmp_path)).run
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == [
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        "attempts/0001.json",
        "checkpoints/step-00000020/manifest.json",
        "checkpoints/step-00000020/state.pt",
        "checkpoints/step-00000024/manifest.json",
        "checkpoints/step-00000024/state.pt",
        "completed.json",
        "lock",
        "metrics.0001.jsonl",
        "resolved.yaml",
        "run.json",
        "status.json",
        "task.log",
    ]
    assert layout.is_run(run)
    assert list(layout.find_runs(tmp_path)) == [run]


def test_the_marker_holds_what_the_curve_ends_with(tmp_path):
    ended = gptopt.train(tiny(tmp_path))
    found = marker(ended.run)
    curve = [json.loads(line) for line in (ended.run / "metrics.0001.jsonl").open()]
    train = [row for row in curve if row["event"] == "train"]
    evaluated = {row["step"]: row["val_loss"] for row in curve if row["event"] == "eval"}
    assert found["final"] == {
        "train_loss": train[-1]["train_loss"],
        "val_loss": evaluated[24],
    }
    best = min(evaluated, key=evaluated.get)
    assert found["best"] == {"val_loss": evaluated[best], "step": best}
    assert (found["step"], found["tokens"]) == (24, 24 * 2 * 2 * 32)
    assert (ended.final_val_loss, ended.objective) == (evaluated[24], evaluated[24])
    assert found["seconds"] == train[-1]["seconds"]
    assert list(evaluated) == [6, 12, 18, 24]


def test_a_completed_run_is_skipped_without_torch_and_without_touching_a_file(tmp_path):
    run = gptopt.train(tiny(tmp_path / "outputs")).run
    before = snapshot(run)
    said, imported = command_line(tmp_path / "outputs")
    assert "completed before; nothing to do" in said
    assert "omegaconf" in imported
    assert "torch" not in imported
    assert snapshot(run) == before
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]


def test_a_completed_run_whose_marker_cannot_be_read_is_still_completed(tmp_path):
    config = tiny(tmp_path, SHORT)
    run = gptopt.train(config).run
    (run / "completed.json").write_text('{"sta')
    again = gptopt.train(config)
    assert (again.state, again.skipped, again.final_val_loss) == ("completed", True, None)


def test_what_cannot_change_the_training_finds_the_same_run(tmp_path):
    gptopt.train(tiny(tmp_path, SHORT))
    other = ("logging.logging_params.norms=false", "checkpoint.keep_last=7", "cluster.workers=3")
    assert gptopt.train(tiny(tmp_path, SHORT, *other)).skipped
    assert not gptopt.train(tiny(tmp_path, SHORT, "training.training_params.seed=1")).skipped


def test_the_api_and_the_command_line_resolve_to_the_same(tmp_path):
    _, imported = command_line(tmp_path / "a", SHORT, "optimizer=muon")
    assert "torch" in imported
    assert "torch._dynamo" not in imported  # seconds, for a compiler that nobody asked for
    gptopt.train(tiny(tmp_path / "b", SHORT, "optimizer=muon"))
    (a,), (b,) = (list(layout.find_runs(tmp_path / name)) for name in "ab")
    assert a.relative_to(tmp_path / "a") == b.relative_to(tmp_path / "b")
    assert result(a) == result(b)
    for name in (layout.RESOLVED, layout.COMPOSED):
        texts = [(run / name).read_text() for run in (a, b)]
        assert texts[0].replace(f"{tmp_path}/a", f"{tmp_path}/b") == texts[1]
    asked = [set(yaml.safe_load((run / layout.OVERRIDES).read_text())) for run in (a, b)]
    assert asked[0] ^ asked[1] == {f"paths.output_dir={tmp_path}/{name}" for name in "ab"}


def test_a_configuration_that_was_changed_after_compose_is_no_result_of_the_first(tmp_path):
    config = tiny(tmp_path, SHORT)
    gptopt.train(config)
    config.optimizer.optimizer_params["lr"] *= 2
    with pytest.raises(ConfigError, match=r"changed after compose\(\) made it"):
        gptopt.train(config)


def test_a_configuration_may_be_changed_in_what_is_not_its_identity(tmp_path):
    config = tiny(tmp_path, SHORT)
    config.logging.logging_params.log_interval = 2
    config.checkpoint.save_interval = 3
    run = gptopt.train(config).run
    steps = [row["step"] for row in rows(run) if "train_loss" in row]
    assert steps == [1, 2, 4]


# --- +force -------------------------------------------------------------------------------------


def test_force_moves_the_earlier_run_aside_and_loses_nothing(tmp_path):
    config = tiny(tmp_path, SHORT)
    run = gptopt.train(config).run
    first = snapshot(run)
    for number in (1, 2):
        ended = gptopt.train(tiny(tmp_path, SHORT, "+force"))
        assert (ended.state, ended.skipped) == ("completed", False)
        assert layout.attempt_numbers(run) == [1]
        assert (run.parent / ".aside" / f"{run.name}-{number}").is_dir()
    kept = snapshot(run.parent / ".aside" / f"{run.name}-1")
    del kept["lock"], first["lock"]  # its time of modification is no one's
    assert kept == first
    assert list(layout.find_runs(tmp_path)) == [run]
    assert gptopt.train(config).skipped


def test_force_leaves_a_run_alone_that_somebody_trains(tmp_path):
    config = tiny(tmp_path, "+force")
    lease = Lease.take(run_directory(config))
    with pytest.raises(BusyError):
        gptopt.train(config)
    lease.release()
    assert not (run_directory(config).parent / ".aside").exists()


# --- failed -------------------------------------------------------------------------------------


def test_a_crash_is_recorded_and_a_second_start_tries_again(tmp_path):
    undisturbed = gptopt.train(tiny(tmp_path / "undisturbed"))
    config = tiny(tmp_path)
    run = run_directory(config)
    with raising(RuntimeError("something broke")), pytest.raises(RuntimeError):
        gptopt.train(config)
    found = marker(run, "failed")
    assert (found["state"], found["attempt"], found["exit_code"]) == ("failed", 1, 1)
    assert found["error"] == "RuntimeError: something broke"
    assert read_state(run).state == status(run)["state"] == "failed"
    assert "Traceback" in (run / layout.TASK_LOG).read_text()
    last = json.loads((run / "metrics.0001.jsonl").read_text().splitlines()[-1])
    assert last == {"event": "stop", "step": 1, "state": "failed", "reason": found["error"]}
    assert gptopt.train(config).state == "completed"
    assert not (run / "failed.json").exists()
    assert result(run) == result(undisturbed.run)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("x"), 1),
        (torch.OutOfMemoryError("CUDA out of memory"), 69),
        (MemoryError(), 69),
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 74),
        (StorageError("x"), 74),
        (CannotCreateError("x"), 73),
        (BusyError("x"), 76),
        (DataError("x"), 65),
        (ConfigError([]), 2),
        (FileNotFoundError(errno.ENOENT, "x"), 1),
    ],
)
def test_the_exit_code_says_what_kind_of_error_it_was(tmp_path, error, code):
    assert exit_code_of(error) == code
    with raising(error):
        assert execute(tiny(tmp_path)) == (code, None)


def test_the_exit_codes_of_good_ends(tmp_path):
    config = tiny(tmp_path)
    stopped_at(config, 3)
    code, ended = execute(config)
    assert (code, ended.state) == (ExitCode.DONE, "completed")
    assert execute(config)[0] == ExitCode.DONE
    assert execute(tiny(tmp_path, "optimizer.optimizer_params.lr=1000"))[0] == ExitCode.DONE


def test_nothing_is_created_when_the_data_is_not_there(tmp_path):
    config = tiny(tmp_path / "outputs", "data=grammar", "data.tokens=100", "data.val_split=50")
    with pytest.raises(DataError):
        gptopt.train(config)
    assert not (tmp_path / "outputs").exists()


def test_a_directory_that_cannot_be_made_ends_with_73(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    assert execute(tiny(tmp_path / "outputs")) == (73, None)


# --- checkpoints that are gone or damaged -------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped at step 13 with three checkpoints, and how it should end."""
    root = tmp_path_factory.mktemp("stopped")
    run = stopped_at(tiny(root / "run", "checkpoint.keep_last=3"), 13)
    assert checkpoints(run) == ["step-00000008", "step-00000012", "step-00000013"]
    return root / "run", result(gptopt.train(tiny(root / "undisturbed")).run)


@pytest.fixture
def damaged(stopped, tmp_path):
    """(config, run directory) of a copy of the stopped run, free to be damaged."""
    shutil.copytree(stopped[0], tmp_path / "run")
    config = tiny(tmp_path / "run", "checkpoint.keep_last=3")
    return config, run_directory(config)


def test_one_flipped_byte_is_said_and_costs_no_bit(damaged, stopped):
    config, run = damaged
    flip_byte(state_file(run, 13))
    assert gptopt.train(config).state == "completed"
    assert result(run) == stopped[1]
    log = (run / layout.TASK_LOG).read_text()
    assert "step-00000013 is damaged: state.pt is not what was written" in log
    assert "resumed from" in log
    assert "step-00000013.bad" in checkpoints(run)


def test_a_run_with_several_damaged_checkpoints_uses_the_last_good_one(damaged, stopped):
    config, run = damaged
    state_file(run, 12).unlink()
    shutil.rmtree(state_file(run, 13).parent)
    state_file(run, 13).parent.mkdir()
    gptopt.train(config)
    assert json.loads(layout.attempt_file(run, 2).read_text())["start_step"] == 8
    assert result(run) == stopped[1]


def test_when_all_checkpoints_are_damaged_the_run_stops_with_74_every_time(damaged):
    config, run = damaged
    for step in (8, 12, 13):
        flip_byte(state_file(run, step))
    (run / layout.STATUS).unlink()  # even then
    for _ in range(2):
        with pytest.raises(StorageError, match="no good checkpoint"):
            gptopt.train(config)
        assert marker(run, "failed")["exit_code"] == 74


def test_when_the_checkpoints_were_deleted_the_run_stops_with_74_every_time(damaged):
    config, run = damaged
    shutil.rmtree(run / layout.CHECKPOINTS)
    for _ in range(2):
        with pytest.raises(StorageError, match="newest step told: 13"):
            gptopt.train(config)
        assert marker(run, "failed")["exit_code"] == 74
    assert gptopt.train(tiny(run.parents[3], "+force")).state == "completed"


# --- a full disk --------------------------------------------------------------------------------


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_training_goes_on_when_a_save_fails_and_the_checkpoint_before_stands(tmp_path, stopped):
    config = tiny(tmp_path)
    run = run_directory(config)
    full = mock.patch("torch.save", no_space)
    seen = []

    def end_of_the_trouble():
        full.stop()
        seen.extend(checkpoints(run))

    with in_step(6, full.start), in_step(14, end_of_the_trouble):
        gptopt.train(config)
    assert seen == ["step-00000004"]
    assert result(run) == stopped[1]
    log = (run / layout.TASK_LOG).read_text()
    assert f"cannot save {run}/checkpoints/step-00000008: No space left on device; " in log
    assert "GB are free (failure 1 of 3)" in log
    assert "failure 2 of 3" in log


def test_after_three_failed_saves_the_run_stops_with_74_and_can_go_on(tmp_path, stopped):
    config = tiny(tmp_path)
    run = run_directory(config)
    full = mock.patch("torch.save", no_space)
    with in_step(6, full.start), pytest.raises(StorageError, match="No space left"):
        gptopt.train(config)
    full.stop()
    found = marker(run, "failed")
    assert (found["exit_code"], checkpoints(run)) == (74, ["step-00000004"])
    assert status(run)["saved_step"] == 4
    gptopt.train(config)
    assert result(run) == stopped[1]


def test_a_stop_that_cannot_save_does_not_claim_that_it_did(tmp_path):
    config = tiny(tmp_path)
    run = run_directory(config)
    full = mock.patch("torch.save", no_space)
    with in_step(6, full.start), pytest.raises(StorageError):
        stopped_at(config, 7)
    full.stop()
    assert status(run)["saved_step"] == 4
    assert gptopt.train(config).state == "completed"


def test_a_status_that_cannot_be_written_costs_nothing(tmp_path, stopped):
    config = tiny(tmp_path)
    with mock.patch.object(files, "write_json", wraps=files.write_json) as write:

        def some(path, *args, **settings):
            if path.name == layout.STATUS:
                no_space()
            return mock.DEFAULT

        write.side_effect = some
        ended = gptopt.train(config)
    assert result(ended.run) == stopped[1]
    assert not (ended.run / layout.STATUS).exists()
    assert read_state(ended.run).state == "completed"


def _limit_files_to_100_kb():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_real_limit_of_the_system_is_named_and_later_lifted(tmp_path, stopped):
    config = tiny(tmp_path)
    run = stopped_at(config, 9)
    before = snapshot(run / layout.CHECKPOINTS)
    assert end(start(config, tmp_path / "log", _limit_files_to_100_kb)) == 74
    assert "File too large; " in (tmp_path / "log").read_text()
    assert "failure 3 of 3" in (tmp_path / "log").read_text()
    assert snapshot(run / layout.CHECKPOINTS) == before
    assert status(run)["saved_step"] == 9
    assert end(start(config)) == 0
    assert result(run) == stopped[1]
