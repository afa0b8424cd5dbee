"""The training loop, top to bottom.

Called by ``gptopt.run`` once the configuration is checked, the data is open and the run
directory belongs to this process. Writes metrics, checkpoints and provenance into it and
returns how the run ended. ``step`` counts optimizer steps done.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptopt import checkpoint
from gptopt.config.schema import Config
from gptopt.config.solver import Derived, solve_schedule
from gptopt.data import Corpus
from gptopt.data.batch import Reading
from gptopt.data.loader import Loader
from gptopt.diagnostics import StepDiagnostics
from gptopt.distributed import World
from gptopt.evaluate import evaluate
from gptopt.gradient import global_gradient
from gptopt.lease import Lease
from gptopt.models import build_model
from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.optim.common.cost import state_size
from gptopt.precision import Precision, choose_device
from gptopt.preempt import StopRequest
from gptopt.profiling import StepProfiler
from gptopt.provenance import (
    numerics,
    warn_if_numerics_differ,
    weights_hash,
    write_provenance,
)
from gptopt.recorder import Recorder
from gptopt.saver import Saver, asked, resume_point
from gptopt.schedules import multiplier
from gptopt.watchdog import Watchdog

MAX_SKIPPED = 10
PREEMPTED_WAIT_S = 5.0

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is, apart from its tensors; travels with every checkpoint."""

    step: int = 0
    seconds: float = 0.0  # of training: without evaluations and checkpoints
    schedule_start: int = 0
    skipped: int = 0  # steps in a row that were not taken
    final: dict[str, float | None] = field(
        default_factory=lambda: {"train_loss": None, "val_loss": None}
    )
    best: dict[str, Any] = field(default_factory=lambda: {"val_loss": None, "step": None})


@dataclass
class Outcome:
    """How an attempt ended: a terminal state, or preempted / interrupted with a checkpoint."""

    state: str
    reason: str
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    final: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


def fit(
    config: Config,
    derived: Derived,
    corpus: Corpus,
    run: Path,
    lease: Lease | None,
    stop: StopRequest,
    watchdog: Watchdog,
) -> Outcome:
    """Trains from the newest checkpoint (or the start) to the end, or until ``stop`` says so.

    Args:
        config: A checked configuration.
        derived: Its numbers, worked out for this machine and corpus.
        corpus: The opened data.
        run: The run directory.
        lease: The right to write there; None in all processes but the main one.
        stop: Asked at every step border.
        watchdog: Told of every step, evaluated batch and checkpoint.
    """
    with World(vars(config.distributed)) as world:
        return _fit(config, derived, corpus, run, lease, stop, watchdog, world)


def _fit(
    config: Config,
    derived: Derived,
    corpus: Corpus,
    run: Path,
    lease: Lease | None,
    stop: StopRequest,
    watchdog: Watchdog,
    world: World,
) -> Outcome:
    params, shown = config.training.training_params, config.logging.logging_params

    # --- device and seeds -----------------------------------------------------------------------
    if config.cluster.threads is not None:
        torch.set_num_threads(config.cluster.threads)
    device = choose_device(world.local_rank)
    precision = Precision(device, params.dtype)
    if params.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(params.deterministic)  # imports the compiler
    checkpoint.seed_everything(params.seed)
    resume_from, load = world.tell(resume_point(config, lease) if lease else None)

    # --- model ----------------------------------------------------------------------------------
    model = build_model(config.model.family, config.model.config).to(device)
    if params.compile:
        model.compile()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.checkpoint.init_from and resume_from is None:
        initial = checkpoint.load(Path(config.checkpoint.init_from).expanduser())
        weights = initial.state.get("eval_model") or initial.state["model"]
        checkpoint.set_weights(model, weights, f"checkpoint.init_from={initial.path}")
        log.info("initial weights from %s", initial.path)

    # --- optimizer, data ------------------------------------------------------------------------
    roles: dict[str, str] = model.parameter_roles()  # type: ignore[operator]
    width: float | None = getattr(model, "mup_width", None)  # not every family has muP
    optimizer = build_optimizer(
        config.optimizer.optimizer_params, model.named_parameters(), roles, width
    )
    optimizer.attach(model)
    reading = Reading.of(config.data, config.model.config["vocab_size"])
    loader = Loader(
        corpus.train,
        context_length=derived.context_length,
        batch_size=derived.batch_size,
        seed=derived.data_seed,
        shuffle=config.data["shuffle"],
        rank=world.rank,
        world_size=world.size,
        reading=reading,
        prefetch=config.data["prefetch"],
        device=device,
    )
    if lease is not None:
        write_provenance(config, run, model, optimizer, loader, corpus, device)

    # --- resume ---------------------------------------------------------------------------------
    now = Progress()
    rule = config.optimizer.optimizer_params["name"]
    here = numerics(device, world.size, params.dtype, params.compile, rule)
    checkpoint.seed_everything(params.seed + world.rank)  # dropout differs between ranks
    if resume_from is not None:
        saved = checkpoint.load(resume_from, rank=world.rank).state
        now = Progress(**saved["progress"])
        if load.model:
            checkpoint.set_weights(model, saved["model"], f"the checkpoint {resume_from}")
        if load.optimizer:
            optimizer.load_state_dict(saved["optimizer"])
            precision.scaler.load_state_dict(saved["scaler"])
        if not load.scheduler:
            now.schedule_start = now.step
        if load.data:
            loader.load_state_dict(saved["loader"])
        if saved["random"] is not None:  # else this process is new in a larger world
            checkpoint.set_random_state(saved["random"], device)
        warn_if_numerics_differ(saved["numerics"], here)
        log.info("resumed from %s", resume_from)
    schedule = _schedule(config, derived, now.schedule_start)

    # --- what is written ------------------------------------------------------------------------
    saver = Saver(config.checkpoint, run, lease, world, stop, saved_step=now.step)
    if lease is not None:
        checkpoint.set_aside_later(run, now.step)
        saver.prune()
        lease.note(start_step=now.step, numerics=here, asked=asked(config))
    recorder = Recorder(
        config.logging,
        run,
        lease,
        start_step=now.step,
        max_steps=derived.max_steps,
        saved_step=now.step,
    )
    profiler = StepProfiler(config.profile, run, world.rank)
    generators = [device] if device.type == "cuda" else []  # of dropout, beside the CPU's
    gradient = partial(global_gradient, model, parameters, params, reading, precision, world)

    # --- the loop -------------------------------------------------------------------------------
    outcome: Outcome | None = None
    is_asked = False  # to stop
    logged_step, logged_seconds = now.step, now.seconds
    model.train()
    with recorder, profiler, loader:
        while now.step < derived.max_steps and outcome is None:
            began = time.perf_counter()
            step = now.step + 1
            is_first, is_last = step == 1, step == derived.max_steps
            is_logged = is_first or is_last or step % derived.log_interval == 0
            is_due = saver.is_due(step, is_last, derived.save_interval)
            is_evaluated = is_last or bool(
                derived.eval_interval and step % derived.eval_interval == 0
            )
            is_watched = bool(
                derived.diagnostics_interval and step % derived.diagnostics_interval == 0
            )
            is_timed = is_logged or is_evaluated or is_due  # or their time would be the step's
            rate = schedule(now.step - now.schedule_start)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate

            if is_watched:
                optimizer.watch_step()

            # forward and backward, where it is wanted first at the weights before the last step
            batches = [loader.next_batch() for _ in range(derived.accumulation_steps)]
            if optimizer.wants_earlier_gradient:
                with torch.random.fork_rng(generators), optimizer.earlier_weights():  # same dropout
                    gradient(batches, optimizer.earlier)
            loss, grad_norm = gradient(batches, optimizer)
            for total in optimizer.totals:
                world.sum(total)

            # What is not finite never reaches the weights; on a GPU, where a look makes the host
            # wait for the device, it never reaches a checkpoint.
            is_checked = (
                is_logged
                or is_due
                or is_asked
                or device.type == "cpu"
                or params.nan_policy == "skip"
            )
            if is_checked or optimizer.wants_loss:
                loss = world.sum(loss) / world.size
                optimizer.observe(loss)
            if is_checked:
                mean_loss = loss.item()
                # with float16 an infinite gradient is the loss scaler's to handle
                norm = 0.0 if precision.scaler.is_enabled() else grad_norm.item()
                trouble = _trouble(mean_loss, norm, derived.divergence_loss)
                now.skipped = now.skipped + 1 if trouble else 0
                if trouble and params.nan_policy == "raise":
                    raise FloatingPointError(f"step {step}: {trouble}")
                if trouble and (params.nan_policy == "stop" or now.skipped == MAX_SKIPPED):
                    outcome = Outcome("diverged", f"step {step}: {trouble}")
                    now.final["train_loss"] = mean_loss
                    recorder.write(_row("train", step, now, derived, train_loss=mean_loss))
                    break
                if trouble:
                    log.warning("step %d is skipped: %s", step, trouble)

            if is_timed:
                precision.synchronize()
            watched = None
            if is_watched and lease is not None and not now.skipped:
                watched = StepDiagnostics(optimizer)
            update_began = time.perf_counter()
            if now.skipped:
                precision.skip()
            else:
                precision.step(optimizer)
            if is_timed:
                precision.synchronize()
            ended = time.perf_counter()
            if watched is not None:
                recorder.write({"event": "diagnostics", "step": step, **watched.measure()})
            model.zero_grad(set_to_none=True)
            optimizer.forget()
            now.step = step
            now.seconds += ended - began
            stop.slowest_step = max(stop.slowest_step, ended - began)
            profiler.step(step)
            watchdog.beat()

            # the step border: log, evaluate, stop, save
            if is_logged:
                now.final["train_loss"] = mean_loss
                steps, seconds = step - logged_step, now.seconds - logged_seconds
                logged_step, logged_seconds = step, now.seconds
                values = {
                    "train_loss": mean_loss,
                    "lr": optimizer.param_groups[0]["lr"],
                    "grad_norm": grad_norm.item(),
                    "tokens_per_second": steps * derived.tokens_per_step / seconds,
                    "step_ms": 1e3 * seconds / steps,
                    "optimizer_ms": 1e3 * (ended - update_began),
                }
                if shown.norms:
                    values["param_norm"] = torch.nn.utils.get_total_norm(parameters).item()
                recorder.write(_row("train", step, now, derived, **values))
            if is_evaluated:
                with optimizer.eval_weights():
                    losses = evaluate(
                        model,
                        corpus,
                        context_length=derived.context_length,
                        batch_size=derived.eval_batch_size,
                        tokens=shown.eval_tokens,
                        with_tests=is_last,
                        reading=reading,
                        precision=precision,
                        world=world,
                        beat=watchdog.beat,
                    )
                now.final["val_loss"] = val_loss = losses["val_loss"]
                costs = {"optimizer_state_bytes": state_size(optimizer)} if is_last else {}
                recorder.write(_row("eval", step, now, derived, **losses, **costs))
                if not math.isfinite(val_loss):
                    outcome = Outcome("diverged", f"step {step}: val_loss is {val_loss}")
                    break
                if now.best["val_loss"] is None or val_loss < now.best["val_loss"]:
                    now.best = {"val_loss": val_loss, "step": step}
            request = stop.check()
            is_asked = world.any(request is not None)
            if is_asked and is_checked and not is_last:
                outcome = Outcome(*(request or ("preempted", "another process was asked to stop")))
            if outcome is not None or is_due:
                measured = {"train_loss": mean_loss, "val_loss": val_loss if is_evaluated else None}
                saved_step = saver.save(
                    {
                        "progress": asdict(now),
                        "model": model.state_dict(),
                        "eval_model": _eval_state(model, optimizer),
                        "optimizer": optimizer.state_dict(),
                        "scaler": precision.scaler.state_dict(),
                        "loader": loader.state_dict(),
                        "random": checkpoint.random_state(device),
                        "numerics": here,
                        "run_id": config.run_id,
                    },
                    step,
                    metric=measured[config.checkpoint.monitor],
                    recorder=recorder,
                    must_succeed=is_last or outcome is not None,
                )
                recorder.saved(saved_step, step)
                watchdog.beat()

    # --- the end --------------------------------------------------------------------------------
    outcome = outcome or Outcome("completed", f"all {derived.max_steps} steps")
    outcome.step, outcome.seconds = now.step, now.seconds
    outcome.tokens = now.step * derived.tokens_per_step
    outcome.final, outcome.best = now.final, now.best
    outcome.weights = weights_hash(model.named_parameters())
    recorder.finish(now.step, outcome.state, outcome.reason)
    if lease is not None:
        lease.end(asdict(outcome), derived.max_steps)
    recorder.wait(PREEMPTED_WAIT_S if outcome.state == "preempted" else math.inf)
    return outcome


def _schedule(config: Config, derived: Derived, start: int) -> Callable[[int], float]:
    """Step since ``start`` -> multiplier of lr, over the steps from there to the end of the run.

    Raises:
        ValueError: Its warm-up and decay, given in steps, are longer than that.
    """
    steps = derived.max_steps - start
    keys = solve_schedule(config.lr_scheduler, steps)
    if start:
        said = ", ".join(f"{key} {value}" for key, value in keys.items())
        log.info("the schedule began anew at step %d, for %d steps: %s", start, steps, said)
    return multiplier(config.lr_scheduler["name"], steps, **keys)


def _eval_state(model: torch.nn.Module, optimizer: RoutedOptimizer) -> dict[str, Tensor] | None:
    """A copy of the weights to evaluate, where they are not those in training."""
    if not optimizer.has_eval_weights:
        return None
    with optimizer.eval_weights():
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _row(event: str, step: int, now: Progress, derived: Derived, **values: float) -> dict[str, Any]:
    tokens = step * derived.tokens_per_step
    return {"event": event, "step": step, "tokens": tokens, "seconds": now.seconds, **values}


def _trouble(loss: float, grad_norm: float, limit: float) -> str | None:
    """Why a step must not be taken, or None."""
    if not math.isfinite(loss):
        return f"loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"gradient norm is {grad_norm}"
    if loss > limit:
        return f"loss {loss:.4g} is above divergence_loss {limit:.4g}"
    return None
