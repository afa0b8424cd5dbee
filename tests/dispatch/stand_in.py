"""A stand-in for the training job, whose runs behave as told; started cold or as forks."""

import json

JOB = """
import fcntl, json, os, pathlib, signal, sys, time
record, index = pathlib.Path(sys.argv[1]), int(sys.argv[2])
told = {name: os.environ.get(name) for name in
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "COLOUR")}
began = time.monotonic()
(record / f"started-{index}").touch()
rows = map(json.loads, (record / "plan.jsonl").read_text().splitlines())
run = next(pathlib.Path(row["run"]) for row in rows if row["index"] == index)
behaviour = json.loads((record.parents[2] / "behaviour.json").read_text())[index]

def status(state):
    (run / "attempts").mkdir(parents=True, exist_ok=True)
    (run / "attempts" / "0001.json").write_text("{}")
    (run / "status.json").write_text(json.dumps({"state": state, "attempt": 1}))

if behaviour == "preempted":
    status("preempted")
    sys.exit(75)
if behaviour == "kills its parent":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if behaviour == "watches":
    status("running")
    lock = open(run / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (record / f"ready-{index}").touch()
    while not (run / "stop").exists():
        time.sleep(0.01)
    status("interrupted")
    sys.exit(75)
if behaviour == "stubborn":
    signal.signal(signal.SIGINT, lambda *_: (record / f"asked-{index}").touch())
if behaviour in ("stubborn", "saves"):
    if behaviour == "saves":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(75))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (record / f"ready-{index}").touch()
    while True:
        time.sleep(0.01)
time.sleep(0.15)
told |= {"began": began, "ended": time.monotonic()}
(record / f"told-{index}.json").write_text(json.dumps(told))
os.write(2, b"below Python\\n")
print("words of run", index)
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(behaviour)
"""
ORIGIN = """
import runpy, sys, types
sys.modules["gptopt.training"] = types.ModuleType("gptopt.training")  # nothing to wait for
from gptopt import job, warm
def run(directory, index):
    runpy.run_module("fake_job", run_name="__main__")
job.run = run
sys.exit(warm.main())
"""


def told(record):
    """What the runs that came so far saw of their environment, and when."""
    return [json.loads(file.read_text()) for file in sorted(record.directory.glob("told-*.json"))]
