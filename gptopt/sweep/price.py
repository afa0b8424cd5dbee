"""What a sweep takes: tokens, device seconds, disk. Worked out without torch.

Tokens follow from the configuration. Seconds and the size of a checkpoint are those of earlier
runs of the same shape, and unknown (or, for a checkpoint, at least the weights) without one.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gptopt import layout
from gptopt.config import solver
from gptopt.files import read_json

BYTES_PER_WEIGHT = 4
"""Weights are kept and saved in float32, whatever the forward pass computes in."""
GATED = ("swiglu", "geglu")
GPU_MAKERS = ("NVIDIA", "Tesla", "AMD Instinct", "AMD Radeon")
"""How the names of GPUs begin, in the words of torch.cuda.get_device_name."""
MOST_READ = 20
"""Earlier runs that are read for each directory of runs, the newest first."""


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Attributes:
        shape: Runs of the same shape need the same time per token, and as large checkpoints.
        tokens: Training tokens; None where only the data can tell how many.
        tokens_per_step: Those of each step.
        parameters: Of the model; None for a model that is not known here.
        checkpoints: How many it leaves behind at the most.
    """

    shape: str
    tokens: int | None
    tokens_per_step: int
    parameters: int | None
    checkpoints: int

    def rest(self, run: Path) -> Cost:
        """What is left of it behind the last checkpoint in the directory ``run``."""
        steps = layout.checkpoint_steps(run)
        if not steps or self.tokens is None:
            return self
        return replace(self, tokens=max(0, self.tokens - steps[-1] * self.tokens_per_step))


def cost(raw: Mapping[str, Any]) -> Cost:
    """The cost of a checked configuration, given as plain nodes."""
    training, model = raw["training"]["training_params"], raw["model"]
    context = training["context_length"] or model["config"]["block_size"]
    batch = solver.solve_batch(
        batch_size=training["batch_size"],
        global_batch_size=training["global_batch_size"],
        accumulation_steps=training["accumulation_steps"],
        data_parallel_size=raw["distributed"]["data_parallel_size"] or 1,
    )
    tokens_per_step = batch.global_batch_size * context
    # With num_epochs the data may end the run before the other limits do.
    length = training["num_epochs"] is None and solver.solve_length(
        max_steps=training["max_steps"],
        max_tokens=training["max_tokens"],
        num_epochs=None,
        tokens_per_step=tokens_per_step,
        global_batch_size=batch.global_batch_size,
        windows=None,
    )
    config = dict(model["config"])
    shape = {
        "model": [model["family"], config],
        "context_length": context,
        "batch": [batch.batch_size, batch.global_batch_size],
        "numbers": [training["dtype"], training["compile"]],
        "optimizer": raw["optimizer"]["optimizer_params"]["name"],
    }
    steps = length.max_steps if length else None
    return Cost(
        shape=json.dumps(shape, sort_keys=True),
        tokens=None if steps is None else steps * tokens_per_step,
        tokens_per_step=tokens_per_step,
        parameters=gpt_parameters(config) if model["family"] == "gpt" else None,
        checkpoints=_kept(raw["checkpoint"], steps),
    )


def gpt_parameters(config: Mapping[str, Any]) -> int:
    """Parameters of gptopt/models/gpt.py, in whose letters they are added up."""
    width, inner = config["n_embd"], config["n_inner"]
    heads = config["n_head"]
    head = config["head_dim"] or width // heads
    gated = config["act"] in GATED
    inner = inner or (8 * width // 3 if gated else 4 * width)
    queries, keys = heads * head, (config["n_kv_head"] or heads) * head
    bias = int(config["bias"])
    rows = math.ceil(config["vocab_size"] / config["vocab_multiple"]) * config["vocab_multiple"]
    norm = width * (1 + bias if config["norm"] == "layernorm" else 1)
    attention = width * (2 * queries + 2 * keys) + bias * (queries + 2 * keys + width)
    attention += 2 * head * config["qk_norm"]
    ups = 2 if gated else 1
    mlp = (ups + 1) * width * inner + bias * (ups * inner + width)
    total = rows * width * (1 if config["tie_embeddings"] else 2)
    total += config["block_size"] * width if config["pos"] == "learned" else 0
    total += config["n_layer"] * (attention + mlp + 2 * norm)
    return total + (norm if config["norm_position"] == "pre" else 0)


def _kept(checkpoint: Mapping[str, Any], steps: int | None) -> int:
    """Checkpoints that are there when a run has ended, at the most."""
    most = checkpoint["keep_last"] + checkpoint["keep_top_k"]
    if checkpoint["save_minutes"] is not None:
        return most
    interval = checkpoint["save_interval"]
    if interval is None:
        return int(checkpoint["save_final"])
    if steps is None:
        return most
    saved, rest = divmod(steps, solver.steps_of(interval, steps) or steps)
    return min(most, saved + (rest > 0 and checkpoint["save_final"]))


@dataclass(frozen=True)
class Price:
    """What the runs to do take in all.

    Attributes:
        runs: How many these are.
        tokens: Training tokens of those whose length is known.
        tokens_unknown: Runs whose length only their data tells.
        seconds: Device seconds (of a GPU, or of one CPU thread) of those that are known.
        device: What the earlier runs computed on.
        seconds_unknown: Runs of a shape, or a length, that no earlier run tells about.
        earlier_runs: How many earlier runs ``seconds`` are worked out from.
        disk_bytes: Checkpoints that stay, at the most; a lower bound with ``disk_unmeasured``.
        disk_unmeasured: Runs without an earlier checkpoint, of which the weights alone count.
        disk_unknown: Runs of which not even these are known.
    """

    runs: int
    tokens: int
    tokens_unknown: int
    seconds: float
    device: str
    seconds_unknown: int
    earlier_runs: int
    disk_bytes: int
    disk_unmeasured: int
    disk_unknown: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people, a line each for tokens, time and disk."""
        if not self.runs:
            return []
        lengths = f" and {self.tokens_unknown} runs as long as their data" * bool(
            self.tokens_unknown
        )
        known = self.runs - self.seconds_unknown
        seconds = "unknown: no earlier run of the same model, batch and optimizer"
        if known:
            counted = f"{known} of {self.runs} runs, " if self.seconds_unknown else ""
            earlier = f"{self.earlier_runs} earlier run{'s' * (self.earlier_runs > 1)}"
            seconds = f"{_hours(self.seconds)} of {self.device} ({counted}from {earlier})"
        bound = "at least " if self.disk_unmeasured or self.disk_unknown else "at most "
        alone = " (weights alone where no earlier checkpoint tells)" if self.disk_unmeasured else ""
        return [
            f"tokens: {_large(self.tokens)}{lengths}",
            f"time: {seconds}",
            f"checkpoints: {bound}{_large(self.disk_bytes)}B{alone}",
        ]


@dataclass(frozen=True)
class _Earlier:
    """What one finished run tells about its shape."""

    seconds_per_token: float
    device: str
    checkpoint_bytes: int | None


def price(
    costs: Sequence[Cost], known: Iterable[tuple[Path, str]], parents: Iterable[str]
) -> Price:
    """The price of runs.

    Args:
        costs: Of each.
        known: Directory and shape of planned runs that have been completed.
        parents: The directories in which other runs like these may lie.
    """
    shapes = {one.shape for one in costs}
    earlier = _earlier(shapes, known, parents) if shapes else {}
    seconds, unknown, disk, unmeasured, unsized = 0.0, 0, 0, 0, 0
    for (shape, tokens, parameters, kept), count in Counter(map(_key, costs)).items():
        found = earlier.get(shape, [])
        if found and tokens is not None:
            seconds += count * tokens * statistics.median(one.seconds_per_token for one in found)
        else:
            unknown += count
        sizes = [one.checkpoint_bytes for one in found if one.checkpoint_bytes is not None]
        if kept and not sizes:
            unmeasured += count
            unsized += count * (parameters is None)
        size = max(sizes, default=BYTES_PER_WEIGHT * (parameters or 0))
        disk += count * kept * size
    used = [one for shape in shapes for one in earlier.get(shape, [])]
    return Price(
        runs=len(costs),
        tokens=sum(one.tokens or 0 for one in costs),
        tokens_unknown=sum(one.tokens is None for one in costs),
        seconds=seconds,
        device=", ".join(sorted({one.device for one in used})),
        seconds_unknown=unknown,
        earlier_runs=len(used),
        disk_bytes=disk,
        disk_unmeasured=unmeasured,
        disk_unknown=unsized,
    )


def _key(one: Cost) -> tuple[str, int | None, int | None, int]:
    return one.shape, one.tokens, one.parameters, one.checkpoints


def _earlier(
    shapes: set[str], known: Iterable[tuple[Path, str]], parents: Iterable[str]
) -> dict[str, list[_Earlier]]:
    """Shape -> what earlier runs of it tell: at most ``MOST_READ`` of the plan, and of others."""
    found: dict[str, dict[Path, _Earlier]] = {}
    for run, shape in known:
        of_shape = found.setdefault(shape, {})
        if shape in shapes and len(of_shape) < MOST_READ and (told := _told(run)):
            of_shape[run] = told
    if not shapes <= {shape for shape, runs in found.items() if runs}:
        for parent in parents:
            for run in _newest(Path(parent)):
                its_shape = _shape(run)
                if its_shape in shapes and (told := _told(run)):
                    found.setdefault(its_shape, {}).setdefault(run, told)
    return {shape: list(runs.values()) for shape, runs in found.items() if runs}


def _newest(parent: Path) -> list[Path]:
    markers = parent.glob(f"*/{layout.TERMINAL['completed']}")
    by_time = sorted(markers, key=lambda marker: marker.stat().st_mtime, reverse=True)
    return [marker.parent for marker in by_time[:MOST_READ]]


def _shape(run: Path) -> str:
    try:
        with open(run / layout.RESOLVED, encoding="utf-8") as file:
            raw = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return cost(raw).shape
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # of another version, or half written


def _told(run: Path) -> _Earlier | None:
    marker = _mapping(run / layout.TERMINAL["completed"])
    attempts = layout.attempt_numbers(run)
    machine = _mapping(layout.attempt_file(run, attempts[-1])) if attempts else {}
    machine = machine | machine.get("numerics", {})
    seconds, tokens = marker.get("seconds"), marker.get("tokens")
    if not seconds or not tokens:
        return None
    is_gpu = str(machine.get("device")).startswith(GPU_MAKERS)
    width = machine.get("world_size") or 1
    width *= 1 if is_gpu else machine.get("threads") or 1
    device = str(machine.get("device") or "unknown device")
    name = device if is_gpu else f"one thread of {device}"
    return _Earlier(width * seconds / tokens, name, _checkpoint_bytes(run))


def _checkpoint_bytes(run: Path) -> int | None:
    steps = layout.checkpoint_steps(run)
    if not steps:
        return None
    manifest = _mapping(layout.checkpoint_dir(run, steps[-1]) / layout.MANIFEST)
    sizes = [file.get("size", 0) for file in manifest.get("files", {}).values()]
    return sum(sizes) or None


def _mapping(file: Path) -> dict[str, Any]:
    value = read_json(file)
    return value if isinstance(value, dict) else {}


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _large(number: int) -> str:
    """Such as ``1.23 G``."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return f"{number} "
