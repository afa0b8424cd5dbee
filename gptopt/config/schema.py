"""The configuration as dataclasses: every fixed key with its type and its range.

The YAML files under hydra_conf/ hold all values; nothing here has a default. Four nodes
are open, since the file they name says which keys they take (``config.resolve.keys_of``):
``model.config``, ``optimizer.optimizer_params``, ``lr_scheduler`` and ``data``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gptopt.config.types import (
    Betas,
    Cadence,
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    Probability,
    Role,
    Seed,
    Share,
)


@dataclass
class Model:
    """``family`` names the file in gptopt/models/ whose ``build`` takes ``config``."""

    name: str
    family: str
    config: dict[str, Any]


@dataclass
class Aux:
    """The AdamW that drives embeddings, head and vectors beside a matrix optimizer."""

    lr: Positive
    betas: Betas
    eps: NonNegative
    weight_decay: NonNegative


@dataclass
class Optimizer:
    """``optimizer_params.name`` names the file in gptopt/optim/; the rest are its keys."""

    optimizer_params: dict[str, Any]


@dataclass
class Loss:
    """What is minimised; validation always reports the plain cross-entropy."""

    label_smoothing: Probability
    z_loss: NonNegative
    softcap: Positive | None


@dataclass
class TrainingParams:
    """One training run: how long, how much at once, in which precision."""

    max_steps: PositiveInt | None
    num_epochs: Positive | None
    max_tokens: PositiveInt | None
    batch_size: PositiveInt | None
    global_batch_size: PositiveInt | None
    accumulation_steps: PositiveInt | None
    context_length: PositiveInt | None
    max_grad_norm: Positive | None
    dtype: Literal["float32", "bfloat16", "float16"]
    compile: bool
    seed: Seed
    data_seed: Seed | None
    deterministic: bool
    nan_policy: Literal["stop", "raise", "skip"]
    divergence_loss: Positive | None
    loss: Loss


@dataclass
class Training:
    """The ``training`` group."""

    training_params: TrainingParams


@dataclass
class LoggingParams:
    """What is written how often. Cadences are steps, or a share of the run below 1."""

    log_interval: Cadence
    eval_interval: Cadence | None
    eval_tokens: PositiveInt | None
    eval_batch_size: PositiveInt | None
    norms: bool
    diagnostics_interval: Cadence | None
    progress: Literal["auto", "bar", "lines", "none"]
    level: Literal["debug", "info", "warning", "error"]


@dataclass
class Logging:
    """Metrics files are always written; ``trackers`` are further places, by name."""

    logging_params: LoggingParams
    trackers: dict[str, Any]


@dataclass
class Load:
    """What a resume takes from the checkpoint."""

    model: bool
    optimizer: bool
    scheduler: bool
    data: bool


@dataclass
class Checkpoint:
    """When state is saved, what is kept, and where a run starts from."""

    save_interval: Cadence | None
    save_minutes: Positive | None
    save_final: bool
    keep_last: PositiveInt
    keep_top_k: Count
    monitor: Literal["val_loss", "train_loss"]
    mode: Literal["min", "max"]
    resume: str | Count
    load: Load
    init_from: str | None


@dataclass
class Distributed:
    """How many devices train one run together."""

    strategy: Literal["auto", "single", "ddp"]
    data_parallel_size: PositiveInt | None
    tensor_parallel_size: PositiveInt
    timeout_minutes: Positive


@dataclass
class Profile:
    """A window of steps recorded by torch's profiler; off when ``start`` is null."""

    name: str
    start: Count | None
    end: PositiveInt | None
    ranks: list[Count]


@dataclass
class Cluster:
    """Where and how jobs of a sweep run."""

    name: str
    backend: Literal["local", "submitit", "disbatch"]
    workers: PositiveInt | None
    workers_per_gpu: PositiveInt
    runs_per_job: PositiveInt | None
    threads: PositiveInt | None
    deadline: str | float | None
    hang_min: Positive | None
    snapshot_source: bool
    timeout_min: PositiveInt
    signal_delay_s: PositiveInt
    attempts_without_progress: PositiveInt
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: PositiveInt
    gpus_per_node: Count
    gres: str | None
    cpus_per_task: PositiveInt
    mem_gb: Positive | None
    array_parallelism: PositiveInt
    setup: list[str]
    env: dict[str, Any]


@dataclass
class Paths:
    """Where things lie; ``run_name`` ends in eight digits of the run's identity."""

    data_root: str
    output_dir: str
    run_name: str
    sweep: str | None


@dataclass
class Ignore:
    """Targets that count in no loss."""

    token_ids: list[Count]
    token_range: tuple[Count | None, Count | None] | None


@dataclass
class DataCommon:
    """The keys of ``data`` that every corpus shares; its format brings the others."""

    name: str
    format: str
    max_tokens: PositiveInt | None
    splits: tuple[Share, Share, Fraction] | None
    eval: dict[str, Any]
    test: dict[str, Any]
    shuffle: bool
    loop: bool
    documents: Literal["plain", "reset_positions", "mask"]
    end_of_text: Count | None
    ignore: Ignore
    prefetch: Count


@dataclass(kw_only=True)
class Config:
    """A whole, checked configuration: what ``gptopt.compose`` returns and ``train`` takes."""

    model: Model
    data: dict[str, Any]
    training: Training
    optimizer: Optimizer
    lr_scheduler: dict[str, Any]
    logging: Logging
    checkpoint: Checkpoint
    distributed: Distributed
    profile: Profile
    cluster: Cluster
    paths: Paths
    args: dict[str, Any]
    force: bool = False  # the one key that no YAML has: it belongs to a single start
    run_id: str = ""
    source: Source = field(default_factory=lambda: Source())


@dataclass
class Source:
    """Where a configuration came from: copied into the run's .hydra directory."""

    overrides: list[str] = field(default_factory=list)
    composed: str = ""  # YAML, interpolations unresolved
    hydra: str = ""


@dataclass
class OptimizerCommon:
    """The keys of ``optimizer_params`` that every optimizer shares; gptopt.optim reads them."""

    name: str
    lr: Positive
    weight_decay: NonNegative
    no_decay: list[Role]
    aux: Aux = field(metadata={"optional": True})
