"""The training loop, top to bottom.

Called by ``gptopt.run`` once the configuration is checked, the data is open and the run
directory belongs to this process. Writes metrics, checkpoints and provenance into it and
returns how the run ended.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gptopt import checkpoint, files, layout
from gptopt.claim import Claim
from gptopt.config.schema import Config
from gptopt.config.solver import Derived
from gptopt.data import Corpus, check_ids
from gptopt.data.loader import Loader
from gptopt.distributed import World
from gptopt.evaluate import evaluate
from gptopt.loss import training_loss
from gptopt.models import build_model
from gptopt.optim import build_optimizer
from gptopt.precision import Precision, choose_device
from gptopt.preempt import StopRequest
from gptopt.profiling import StepProfiler
from gptopt.progress import RunProgress
from gptopt.provenance import numerics, provenance, weights_hash
from gptopt.schedules import multiplier
from gptopt.tracking import start_trackers
from gptopt.tracking.metrics import MetricsFile

MAX_SKIPPED = 10
MAX_FAILED_SAVES = 3

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """How an attempt ended: a terminal state, or preempted / interrupted with a checkpoint."""

    state: str
    reason: str = ""
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    final: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, float | int | None] = field(default_factory=dict)
    weights: str | None = None


def fit(
    config: Config, derived: Derived, corpus: Corpus, run: Path, claim: Claim | None, stop: StopRequest
) -> Outcome:
    """Trains from the newest checkpoint (or the start) to the end, or until ``stop`` says so.

    Args:
        config: A checked configuration.
        derived: Its numbers, worked out for this machine and corpus.
        corpus: The opened data.
        run: The run directory.
        claim: The right to write there; None in all processes but the first.
        stop: Asked at every step border.
    """
    params, shown = config.training.training_params, config.logging.logging_params

    with World(vars(config.distributed)) as world:
        # --- device and seeds ---------------------------------------------------------------
        device = choose_device(world.local_rank)
        precision = Precision(device, params.dtype)
        if params.deterministic:
            torch.use_deterministic_algorithms(True)
        checkpoint.seed_everything(params.seed)

        # --- model --------------------------------------------------------------------------
        check_ids(corpus.train, config.model.config["vocab_size"])
        model = build_model(config.model.family, config.model.config).to(device)
        forward = torch.compile(model) if params.compile else model
        if config.checkpoint.init_from:
            initial = checkpoint.load(Path(config.checkpoint.init_from).expanduser())
            model.load_state_dict(initial.state["model"])
            log.info("initial weights from %s (step %d)", initial.path, initial.step)

        # --- optimizer and schedule ---------------------------------------------------------
        optimizer = build_optimizer(
            config.optimizer.optimizer_params, model.named_parameters(), model.parameter_roles()
        )
        schedule = multiplier(
            config.lr_scheduler["name"], derived.max_steps, **derived.schedule
        )
        schedule_start = 0

        # --- data ---------------------------------------------------------------------------
        loader = Loader(
            corpus.train,
            context_length=derived.context_length,
            batch_size=derived.batch_size,
            seed=derived.data_seed,
            shuffle=True,
            rank=world.rank,
            world_size=world.size,
        )
        if claim is not None:
            _write_provenance(config, run, model, optimizer, loader, corpus, device)
        checkpoint.seed_everything(params.seed + world.rank)  # dropout differs between ranks

        # --- resume -------------------------------------------------------------------------
        step, seconds = 0, 0.0
        best: dict[str, float | int | None] = {"val_loss": None, "step": None}
        final: dict[str, float | None] = {"train_loss": None, "val_loss": None}
        here = numerics(device, world.size, params.dtype, params.compile)
        source = world.tell(_resume_point(config, claim) if claim else None)
        if source is not None:
            loaded = checkpoint.load(source, rank=world.rank)
            saved, load = loaded.state, config.checkpoint.load
            step, seconds, best, final = (saved[k] for k in ("step", "seconds", "best", "final"))
            if load.model:
                model.load_state_dict(saved["model"])
            if load.optimizer:
                optimizer.load_state_dict(saved["optimizer"])
                precision.scaler.load_state_dict(saved["scaler"])
            schedule_start = saved["schedule_start"] if load.scheduler else step
            if load.data:
                loader.load_state_dict(saved["loader"])
            checkpoint.set_random_state(saved["random"], device)
            _warn_if_numerics_differ(saved["numerics"], here)
            log.info("resumed from %s at step %d", source, step)
            if claim is not None:
                checkpoint.set_aside_later(run, step)

        def snapshot() -> dict[str, Any]:
            return {
                "step": step,
                "seconds": seconds,
                "best": best,
                "final": final,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": precision.scaler.state_dict(),
                "schedule_start": schedule_start,
                "loader": loader.state_dict(),
                "random": checkpoint.random_state(device),
                "numerics": here,
                "run_id": config.run_id,
            }

        # --- what is written ----------------------------------------------------------------
        attempt = claim.attempt if claim else 0
        metrics = MetricsFile(layout.metrics_file(run, attempt)) if claim else None
        trackers = None
        if claim is not None and metrics is not None:
            claim.note(start_step=step, numerics=here)
            metrics.write(
                {"event": "start", "attempt": attempt, "start_step": step, "time": time.time()}
            )
            trackers = start_trackers(config.logging.trackers, run, attempt)
        progress = RunProgress(shown.progress if claim else "none", step, derived.max_steps)
        profiler = StepProfiler(config.profile, run, world.rank)
        last_status = 0.0
        saved_at = step if source is not None else None

        def write(row: dict[str, Any]) -> None:
            nonlocal last_status
            if claim is None or metrics is None or trackers is None:
                return
            metrics.write(row)
            trackers.poll()
            progress.show(row)
            if time.monotonic() - last_status > 2.0:
                last_status = time.monotonic()
                claim.status(
                    "running", step=step, max_steps=derived.max_steps, saved_step=saved_at or 0
                )

        failed_saves, last_save = 0, time.monotonic()

        def save() -> None:
            nonlocal failed_saves, last_save, saved_at
            began = time.monotonic()
            state = snapshot()
            others = {}
            if world.size > 1:
                generators = world.gather({"random": state["random"]})
                others = {checkpoint.rank_file(r): g for r, g in enumerate(generators) if r}
            if claim is not None:
                metric = final[config.checkpoint.monitor] if evaluated_at == step else None
                try:
                    if metrics is not None:
                        metrics.sync()
                    checkpoint.save(claim, step, state, metric=metric, extra=others)
                    checkpoint.prune(
                        run,
                        keep_last=config.checkpoint.keep_last,
                        keep_top_k=config.checkpoint.keep_top_k,
                        mode=config.checkpoint.mode,
                    )
                    failed_saves, saved_at = 0, step
                except (checkpoint.StorageError, OSError) as error:
                    failed_saves += 1
                    log.warning("%s (failure %d of %d)", error, failed_saves, MAX_FAILED_SAVES)
                    if failed_saves == MAX_FAILED_SAVES or step == derived.max_steps:
                        raise
            world.barrier()
            last_save = time.monotonic()
            stop.slowest_save = max(stop.slowest_save, last_save - began)

        def run_evaluation() -> None:
            nonlocal evaluated_at
            final["val_loss"] = evaluate(
                forward,
                corpus.val,
                context_length=derived.context_length,
                batch_size=derived.eval_batch_size,
                tokens=shown.eval_tokens,
                precision=precision,
                world=world,
            )
            evaluated_at = step
            if best["val_loss"] is None or final["val_loss"] < best["val_loss"]:
                if math.isfinite(final["val_loss"]):
                    best.update(val_loss=final["val_loss"], step=step)
            write(
                {
                    "event": "eval",
                    "step": step,
                    "tokens": step * derived.tokens_per_step,
                    "seconds": seconds,
                    "val_loss": final["val_loss"],
                }
            )

        # --- the loop -----------------------------------------------------------------------
        parameters = [p for p in model.parameters() if p.requires_grad]
        outcome: Outcome | None = None
        evaluated_at: int | None = None
        skipped = 0
        interval_step, interval_seconds = step, seconds
        model.train()
        with progress, profiler:
            while step < derived.max_steps and outcome is None:
                began = time.perf_counter()
                is_logged = (step + 1) % derived.log_interval == 0 or step in (
                    0,
                    derived.max_steps - 1,
                )
                rate = schedule(step - schedule_start)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * rate

                # forward and backward over the parts of the global batch
                loss = torch.zeros((), device=device)
                for _ in range(derived.accumulation_steps):
                    x_BT, y_BT = loader.next_batch()
                    x_BT = x_BT.to(device, non_blocking=True)
                    y_BT = y_BT.to(device, non_blocking=True)
                    with precision.autocast():
                        logits_BTV = forward(x_BT)
                    part = training_loss(logits_BTV, y_BT, **vars(params.loss))
                    part = part / derived.accumulation_steps
                    precision.scaler.scale(part).backward()
                    loss += part.detach()
                world.average_gradients(parameters)
                precision.scaler.unscale_(optimizer)
                grad_norm = torch.nn.utils.clip_grad_norm_(
                    parameters, params.max_grad_norm or math.inf
                )

                # a loss or gradient that is not finite never reaches the weights; on a GPU it is
                # looked at only where the host waits for the device anyway
                if is_logged or device.type == "cpu" or params.nan_policy == "skip":
                    loss_now = (world.sum(loss) / world.size).item()
                    # with float16 an infinite gradient is the loss scaler's to handle
                    norm_now = 0.0 if precision.scaler.is_enabled() else grad_norm.item()
                    trouble = _trouble(loss_now, norm_now, derived.divergence_loss)
                    if trouble and params.nan_policy == "raise":
                        raise FloatingPointError(f"step {step + 1}: {trouble}")
                    if trouble:
                        skipped += 1
                        if params.nan_policy == "stop" or skipped == MAX_SKIPPED:
                            outcome = Outcome("diverged", f"step {step + 1}: {trouble}")
                            final["train_loss"] = loss_now
                            write(_train_row(step + 1, derived, loss_now, {}, seconds))
                            break
                        log.warning("step %d skipped: %s", step + 1, trouble)
                    else:
                        skipped = 0

                if is_logged:
                    precision.synchronize()
                update_began = time.perf_counter()
                if not skipped:
                    precision.scaler.step(optimizer)
                    precision.scaler.update()
                if is_logged:
                    precision.synchronize()
                ended = time.perf_counter()
                model.zero_grad(set_to_none=True)
                step += 1
                seconds += ended - began
                stop.slowest_step = max(stop.slowest_step, ended - began)
                profiler.step(step)

                # --- step border: log, evaluate, save, stop -------------------------------------
                if is_logged:
                    final["train_loss"] = loss_now
                    elapsed, steps = seconds - interval_seconds, step - interval_step
                    interval_step, interval_seconds = step, seconds
                    extra = {
                        "lr": optimizer.param_groups[0]["lr"],
                        "grad_norm": grad_norm.item(),
                    }
                    if shown.norms:
                        extra["param_norm"] = torch.nn.utils.get_total_norm(parameters).item()
                    extra |= {
                        "tokens_per_second": steps * derived.tokens_per_step / elapsed,
                        "step_ms": 1e3 * elapsed / steps,
                        "optimizer_ms": 1e3 * (ended - update_began),
                    }
                    write(_train_row(step, derived, loss_now, extra, seconds))
                is_last = step == derived.max_steps
                if is_last or (derived.eval_interval and step % derived.eval_interval == 0):
                    run_evaluation()
                    if not math.isfinite(final["val_loss"] or 0.0):
                        outcome = Outcome("diverged", f"step {step}: val_loss is not finite")
                        break
                asked = stop.check()
                if world.any(asked is not None) and not is_last:
                    outcome = Outcome(*(asked or ("preempted", "another process was asked to stop")))
                is_due = derived.save_interval and step % derived.save_interval == 0
                minutes = config.checkpoint.save_minutes
                is_late = world.tell(
                    minutes is not None and time.monotonic() - last_save > 60 * minutes
                )
                if outcome is not None or (is_last and config.checkpoint.save_final):
                    save()
                elif not is_last and (is_due or is_late):
                    save()

        # --- the end ------------------------------------------------------------------------
        outcome = outcome or Outcome("completed", f"all {derived.max_steps} steps")
        outcome.step, outcome.seconds = step, seconds
        outcome.tokens = step * derived.tokens_per_step
        outcome.final, outcome.best = final, best
        outcome.weights = weights_hash(model.named_parameters())
        if claim is not None and metrics is not None and trackers is not None:
            ending = {"event": "stop", "step": step, "state": outcome.state}
            metrics.write(ending | {"reason": outcome.reason})
            metrics.sync()
            metrics.close()
            trackers.finish()
        return outcome


def _train_row(
    step: int, derived: Derived, loss: float, extra: dict[str, float], seconds: float
) -> dict[str, Any]:
    tokens = step * derived.tokens_per_step
    row = {"event": "train", "step": step, "tokens": tokens, "train_loss": loss}
    return row | extra | {"seconds": seconds}


def _trouble(loss: float, grad_norm: float, limit: float) -> str | None:
    """Why a step must not be taken, or None."""
    if not math.isfinite(loss):
        return f"loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"gradient norm is {grad_norm}"
    if loss > limit:
        return f"loss {loss:.4g} is above divergence_loss {limit:.4g}"
    return None


def _resume_point(config: Config, claim: Claim) -> Path | None:
    """The checkpoint to start from, as ``checkpoint.resume`` says."""
    status = files.read_json(claim.run / layout.STATUS) or {}
    return checkpoint.find(
        claim.run,
        config.checkpoint.resume,
        config.checkpoint.mode,
        saved_step=status.get("saved_step", 0),
        repair=True,
    )


def _warn_if_numerics_differ(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        log.warning("this resume is not bit-exact: %s", ", ".join(changed))


def _write_provenance(
    config: Config,
    run: Path,
    model: torch.nn.Module,
    optimizer: Any,
    loader: Loader,
    corpus: Corpus,
    device: torch.device,
) -> None:
    """``run.json``, once: what this run started from."""
    if (run / layout.PROVENANCE).exists():
        return
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = sum(row["numel"] for row in optimizer.table if row["role"] == "embedding")
    for row in optimizer.table:
        log.debug("%(name)s %(shape)s %(role)s -> %(rule)s, lr %(lr)g, decay %(weight_decay)g", row)
    content = {
        "run_id": config.run_id,
        "run_name": config.paths.run_name,
        "sweep": config.paths.sweep,
        **provenance(device),
        "fingerprints": {
            "init_weights": weights_hash(model.named_parameters()),
            "data": corpus.fingerprint,
            "data_order": loader.order_fingerprint(),
            "eval": f"{config.logging.logging_params.eval_tokens} tokens of {corpus.fingerprint}",
        },
        "data": corpus.files,
        "parameters": {
            "total": total,
            "non_embedding": total - embedding,
            "table": optimizer.table,
        },
    }
    files.write_json(run / layout.PROVENANCE, content)
