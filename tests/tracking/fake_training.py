"""Stands for a training process: python fake_training.py RUN_DIR ATTEMPT START_STEP

It logs ten steps, goes on polling until RUN_DIR/go_on exists, and logs ten more. What it
prints last says how long it waited for its trackers, and what it has imported.
"""

import json
import logging
import math
import sys
import time
from pathlib import Path

import yaml

from gptopt.layout import metrics_file
from gptopt.tracking import MetricsFile, start_trackers

run, attempt, start_step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
trackers_config = yaml.safe_load((run / "resolved.yaml").read_text())["logging"]["trackers"]

metrics = MetricsFile(metrics_file(run, attempt))
metrics.write({"event": "start", "attempt": attempt, "start_step": start_step, "time": 1.5})
trackers = start_trackers(trackers_config, run, attempt)


def train(first: int) -> None:
    for step in range(first, first + 10):
        loss = {3: math.nan, 4: math.inf, 5: -math.inf}.get(step, 1 / (step + attempt))
        metrics.write({"event": "train", "step": step, "train_loss": loss, "lr": 1e-3 / 3})
        trackers.poll()
    metrics.write({"event": "eval", "step": step, "val_loss": math.sqrt(step)})


train(start_step + 1)
give_up = time.monotonic() + 60
while not (run / "go_on").exists() and time.monotonic() < give_up:
    trackers.poll()
    time.sleep(0.02)
train(start_step + 11)
metrics.write({"event": "stop", "step": start_step + 20, "state": "completed", "reason": ""})
metrics.close()
began = time.monotonic()
trackers.finish()
print(json.dumps([time.monotonic() - began, sorted({"wandb", "torch"} & set(sys.modules))]))
