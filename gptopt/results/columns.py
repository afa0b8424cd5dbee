"""Names and meanings of the columns of the tables: an interface, kept when code changes."""

from __future__ import annotations

import functools

from gptopt.config.identity import IDENTITY_NODES

VERSION = 4
"""Counts up when a column is added; none is ever renamed or given another meaning."""

RUN_TEXTS = {
    "run_id": "identity of the run: a hash of what it was asked to do; unique in the table",
    "path": "run directory, absolute",
    "model": "`model.name`",
    "dataset": "`data.name`",
    "optimizer": "`optimizer.optimizer_params.name`",
    "run_name": "name for people",
    "sweep": "the sweep that started the run, if one did",
    "state": "new, running, preempted, interrupted, completed, diverged or failed",
    "reason": "why it is in that state, in words",
    "overrides": "what was typed behind `python run_hydra.py`, quoted for a shell",
    "workload": "equal for runs that may be compared with each other",
    "trial": "equal for runs that differ in nothing but their seeds",
}
RUN_NUMBERS = {
    "seed": "`training.training_params.seed`",
    "lr": "`optimizer.optimizer_params.lr`, the peak learning rate",
    "final_train_loss": "last logged training loss, nats per token; inf where it was not finite",
    "final_val_loss": "last validation loss, nats per token; inf where it was not finite",
    "best_val_loss": "lowest finite validation loss, nats per token",
    "best_val_step": "the first step that had it",
    "step": "optimizer steps done",
    "max_steps": "optimizer steps of the whole run",
    "tokens": "training tokens at the last logged row",
    "total_tokens": "training tokens of the whole run",
    "seconds": "training time over all attempts, without evaluation and checkpoints",
    "tokens_per_second": "median over the logged rows",
    "parameters": "trainable parameters",
    "flops_per_token": "6 x parameters without embeddings: forward and backward (Kaplan et al. "
    "2020), twice that for an optimizer that asks for a second gradient (mars with `exact`); "
    "attention and the optimizer's own work are not counted",
    "attempts": "how often the run was started",
    "started": "Unix time of the first start",
}
METRIC_COLUMNS = {
    "run_id": "joins the table of runs",
    "attempt": "which start of the run logged the row, from 1",
    "event": "`train` or `eval`",
    "step": "optimizer steps done",
    "tokens": "training tokens so far",
    "seconds": "training time so far, without evaluation and checkpoints",
    "train_loss": "nats per token, of the batch of this step",
    "val_loss": "nats per token, of the validation set",
    "lr": "learning rate of the step",
    "grad_norm": "global norm of the gradient before clipping",
    "param_norm": "norm of all parameters",
    "tokens_per_second": "training tokens per second since the row before",
    "step_ms": "milliseconds per optimizer step since the row before",
    "optimizer_ms": "milliseconds of the optimizer's own work per step",
    "optimizer_state_bytes": "bytes of the optimizer's state; in the last `eval` row",
}
DIAGNOSTIC_COLUMNS = {
    "run_id": "joins the table of runs",
    "attempt": "which start of the run logged the row, from 1",
    "step": "optimizer steps done",
    "name": "what was measured; the keys of nested objects are joined by `/`",
    "value": "the number",
}

SEEDS = ("training.training_params.seed", "training.training_params.data_seed")
TRIAL = (*IDENTITY_NODES, "checkpoint.init_from")
"""Runs that agree below these keys, seeds apart, are one trial."""
WORKLOAD = ("model", "data", "derived.context_length", "derived.total_tokens")
"""Runs that agree below these keys may be compared with each other."""


@functools.cache
def below(key: str, nodes: tuple[str, ...]) -> bool:
    """Whether the dotted ``key`` is one of ``nodes`` or lies below one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
