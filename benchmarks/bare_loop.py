"""The floor: the same model and optimizer in a plain PyTorch loop, as short as it gets.

    python benchmarks/bare_loop.py STEPS

Trains gpt-tiny as `python run_hydra.py` does by default (8 windows of 128 bytes per step,
fused AdamW, clipping), prints the loss every 10 steps, and nothing else.
"""

import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.nn import functional

from gptopt.models import build_model

STEPS, BATCH, CONTEXT = int(sys.argv[1]), 8, 128

torch.manual_seed(0)
preset = Path(__file__).parent.parent / "hydra_conf" / "model" / "gpt-tiny.yaml"
model = build_model("gpt", yaml.safe_load(preset.read_text())["config"])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
library = Path(sysconfig.get_path("stdlib"))
tokens = np.frombuffer(b"".join(p.read_bytes() for p in sorted(library.glob("*.py"))), np.uint8)
random = np.random.default_rng(0)

for step in range(STEPS):
    starts = random.integers(0, len(tokens) - CONTEXT, BATCH)
    rows = np.stack([tokens[s : s + CONTEXT + 1] for s in starts]).astype(np.int64)
    x, y = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
    loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if (step + 1) % 10 == 0:
        print(step + 1, loss.item())
