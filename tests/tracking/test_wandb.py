"""wandb as a follower of a run, in the weather it meets on clusters: real processes."""

import contextlib
import inspect
import json
import math
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from gptopt.layout import HYDRA_CONF, metrics_file
from gptopt.tracking.processes import descendants

FAKE_TRAINING = Path(__file__).with_name("fake_training.py")
KEY = "0123456789abcdef0123456789abcdef01234567"
RUN_ID = "c0ffee" * 10 + "beef"
DEADLINE_S = 30.0


@pytest.fixture
def training_with(tmp_path):
    """Makes a fake training process; what a failed test leaves running is killed."""
    yield lambda **settings: Training(tmp_path, **settings)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={tmp_path}/".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


class Training:
    """A fake training process with a wandb tracker, in a run directory of its own."""

    def __init__(self, directory, **settings):
        self.run = directory / "my work" / "lr-0.1-c0ffeec0"
        self.run.mkdir(parents=True)
        self.home = directory / "home"
        self.home.mkdir()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        self.env = clean | {"HOME": str(self.home)}
        wandb = yaml.safe_load((HYDRA_CONF / "logging/wandb.yaml").read_text())["trackers"]["wandb"]
        self.config = {
            "optimizer": {"optimizer_params": {"name": "muon", "lr": 0.1}},
            "logging": {"trackers": {"wandb": wandb | settings}},
            "paths": {"sweep": "lr_sweep"},
            "derived": {"run_id": RUN_ID},
        }
        (self.run / "resolved.yaml").write_text(yaml.safe_dump(self.config))

    def start(self, attempt=1, start_step=0):
        command = [sys.executable, str(FAKE_TRAINING), str(self.run), str(attempt), str(start_step)]
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return self

    def end(self):
        """Lets it train on to its end; returns its warnings and the seconds it waited."""
        (self.run / "go_on").touch()
        out, err = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0, err
        waited, imported = json.loads(out)
        assert imported == []
        return [line for line in err.splitlines() if line.startswith("WARNING")], waited

    def service(self):
        """Process ids of the tracker and of its wandb-core, once the run is set up there."""

        def ready():
            found = descendants(self.process.pid)  # for a moment also what wandb asks, such as git
            return list(self.run.glob("wandb/*run-*/*.wandb")) and len(found) == 2 and found

        follower, service = wait_for(ready)
        assert b"wandb-core" in cmdline(service)
        return follower, service

    def written(self, attempt=1):
        """The numbers of the metrics file, as its documentation says to read them."""
        found = []
        for line in metrics_file(self.run, attempt).read_text().splitlines():
            row = json.loads(line)
            row |= {k: float(v) for k, v in row.pop("nonfinite", {}).items()}
            if row.pop("event") in ("train", "eval"):
                found.append(row)
        return found

    def stored(self):
        """Records of the wandb files, one list per file in the order of their start."""
        return [records(path) for path in sorted(self.run.glob("wandb/offline-run-*/*.wandb"))]


def wait_for(condition):
    start = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - start < DEADLINE_S, "waited in vain"
        time.sleep(0.02)
    return found


def cmdline(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def records(path):
    """Records of a .wandb file: the log format of LevelDB around wandb's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, data, found, payload, at = 32768, path.read_bytes(), [], b"", 7
    while at + 7 <= len(data):
        if block - at % block < 7:  # no room for a header: the block is padded
            at += block - at % block
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        payload += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(payload))
            payload = b""
    return found


def history(record_list):
    rows = []
    for record in record_list:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            rows.append({k: json.loads(v) for k, v in items.items() if not k.startswith("_")})
    return rows


def same(a, b):
    """Equal rows, where a NaN equals a NaN; every other number to the last bit."""
    return repr([sorted(row.items()) for row in a]) == repr([sorted(row.items()) for row in b])


def test_offline_run_holds_the_numbers_of_the_metrics_file(training_with):
    training = training_with(mode="offline", tags=["a tag"]).start()
    training.service()
    warnings, _ = training.end()
    assert warnings == []

    (stored,) = training.stored()
    assert same(history(stored), training.written())
    assert len(training.written()) == 22
    assert sum(not math.isfinite(row.get("train_loss", 0)) for row in history(stored)) == 3

    run = next(r.run for r in stored if r.WhichOneof("record_type") == "run")
    assert (run.run_id, run.display_name, run.run_group) == (
        RUN_ID[:12],
        training.run.name,
        "lr_sweep",
    )
    assert list(run.tags) == ["a tag"]
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["optimizer"] == training.config["optimizer"]
    metric = next(r.metric for r in stored if r.WhichOneof("record_type") == "metric")
    assert (metric.glob_name, metric.step_metric) == ("*", "step")
    assert list(training.home.iterdir()) == []  # nothing outside the run directory


def test_signals_that_stop_training_leave_its_tracker_alone(training_with):
    # SLURM sends them to every process of the job, whatever its session.
    training = training_with(mode="offline").start()
    follower, _ = training.service()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        os.kill(follower, number)
    warnings, _ = training.end()
    assert warnings == []
    assert same(history(training.stored()[0]), training.written())


def test_killed_service_costs_one_warning_and_no_step(training_with):
    training = training_with(mode="offline").start()
    follower, service = training.service()
    os.kill(service, signal.SIGKILL)
    warnings, waited = training.end()
    assert len(warnings) == 1
    assert "tracker wandb" in warnings[0]
    assert waited < 10
    assert len(training.written()) == 22
    assert is_gone(follower)


def test_frozen_service_costs_the_finish_timeout_and_no_step(training_with):
    training = training_with(mode="offline", finish_timeout=1.5).start()
    follower, service = training.service()
    os.kill(service, signal.SIGSTOP)
    warnings, waited = training.end()
    assert len(warnings) == 1
    assert "did not end within 1.5 s" in warnings[0]
    assert waited < 5
    assert len(training.written()) == 22
    assert is_gone(follower)
    wait_for(lambda: is_gone(service))


def test_frozen_tracker_is_killed_with_its_service(training_with):
    training = training_with(mode="offline", finish_timeout=0.5).start()
    processes = training.service()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    warnings, _ = training.end()
    assert len(warnings) == 1
    wait_for(lambda: all(is_gone(pid) for pid in processes))


def test_unreachable_server_gives_an_offline_run_and_the_key_is_nowhere(tmp_path, training_with):
    training = training_with(mode="auto", init_timeout=1.0)  # auto: there is a key
    training.env |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
    training.start()
    wait_for(lambda: training.stored())
    warnings, _ = training.end()
    assert len(warnings) == 1
    stored = re.search(r"wandb sync ('[^']+')\.", warnings[0])  # to be pasted into a shell
    assert stored, warnings[0]
    assert Path(*shlex.split(stored[1])).is_dir()
    assert same(history(training.stored()[0]), training.written())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert KEY[:16].encode() not in path.read_bytes(), path


def test_without_a_key_auto_is_offline(training_with):
    training = training_with(mode="auto")
    training.env["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    training.start()
    warnings, _ = training.end()
    assert warnings == []
    assert same(history(training.stored()[0]), training.written())


def test_absent_package_costs_one_warning_that_names_it(tmp_path, training_with):
    training = training_with(mode="offline")
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "wandb.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'wandb'\")"
    )
    training.env["PYTHONPATH"] = str(tmp_path / "shim")
    training.start()
    log = training.run / "tracker.wandb.log"
    wait_for(lambda: log.exists() and log.read_text() and not descendants(training.process.pid))
    warnings, _ = training.end()
    assert len(warnings) == 1
    assert "ended early" in warnings[0]
    assert "No module named 'wandb'" in warnings[0]
    assert len(training.written()) == 22


def test_tracker_of_a_killed_training_process_stores_its_rows_and_ends(training_with):
    training = training_with(mode="offline").start()
    processes = training.service()
    training.process.kill()
    training.process.communicate()
    wait_for(lambda: all(is_gone(pid) for pid in processes))
    assert len(training.written()) == 11
    assert same(history(training.stored()[0]), training.written())


def test_hanging_tracker_of_a_killed_training_process_ends_too(training_with):
    training = training_with(mode="offline", finish_timeout=0.5).start()
    processes = training.service()
    os.kill(processes[1], signal.SIGSTOP)
    training.process.kill()
    training.process.communicate()
    wait_for(lambda: all(is_gone(pid) for pid in processes))


def test_resumed_run_keeps_its_id_and_a_replay_gives_its_curve_once(training_with):
    # Attempt 1 logs steps 1 to 20, attempt 2 starts again at 10 and logs 11 to 30.
    training = training_with(mode="offline").start(attempt=1, start_step=0)
    training.end()
    training.start(attempt=2, start_step=10)
    training.end()
    follow = [sys.executable, "-m", "gptopt.tracking.follow", "wandb", str(training.run)]
    subprocess.run(follow, env=training.env, check=True, capture_output=True)

    first, second, replayed = training.stored()
    ids = {r.run.run_id for r in first + second + replayed if r.HasField("run")}
    assert ids == {RUN_ID[:12]}
    curve = [row for row in training.written(1) if row["step"] <= 10] + training.written(2)
    assert same(history(replayed), curve)
    assert [row["step"] for row in curve if "train_loss" in row] == list(range(1, 31))


def test_yaml_has_the_keys_that_build_takes():
    from gptopt.tracking.wandb import build

    keys = yaml.safe_load((HYDRA_CONF / "logging/wandb.yaml").read_text())["trackers"]["wandb"]
    parameters = list(inspect.signature(build).parameters.values())[1:]
    assert list(keys) == [parameter.name for parameter in parameters]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


@pytest.mark.parametrize("override", ["+logging=wandb", "+logging=[wandb,other]"])
def test_trackers_are_added_to_the_logging_of_config_yaml(tmp_path, override):
    import shutil

    from hydra import compose, initialize_config_dir

    conf = tmp_path / "conf"
    shutil.copytree(HYDRA_CONF, conf)
    (conf / "logging" / "other.yaml").write_text("trackers: {other: {finish_timeout: 1}}")
    with initialize_config_dir(str(conf), version_base="1.3"):
        logging = compose("config", [override, "logging.trackers.wandb.project=mine"]).logging
    assert ["wandb", "other"][: len(logging.trackers)] == list(logging.trackers)
    assert len(logging.trackers) == 1 + override.count("other")
    assert logging.trackers.wandb.project == "mine"
    assert "log_interval" in logging.logging_params
