"""The training loop, top to bottom.

Called by ``gptopt.run`` once the configuration is checked, the data is open and the run
directory belongs to this process. Writes metrics, checkpoints and provenance into it and
returns how the run ended. ``step`` counts optimizer steps done.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gptopt import checkpoint, files, layout
from gptopt.claim import Claim
from gptopt.config.schema import Config
from gptopt.config.solver import Derived
from gptopt.data import Corpus
from gptopt.data.loader import Loader
from gptopt.distributed import World
from gptopt.evaluate import evaluate
from gptopt.loss import training_loss
from gptopt.models import build_model
from gptopt.optim import RoutedOptimizer, build_optimizer
from gptopt.precision import Precision, choose_device
from gptopt.preempt import StopRequest
from gptopt.profiling import StepProfiler
from gptopt.provenance import numerics, provenance, weights_hash
from gptopt.recorder import Recorder
from gptopt.schedules import multiplier

MAX_SKIPPED = 10
MAX_FAILED_SAVES = 3
PREEMPTED_WAIT_S = 5.0

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is, apart from its tensors; travels with every checkpoint."""

    step: int = 0
    seconds: float = 0.0  # of training: without evaluations and checkpoints
    schedule_start: int = 0
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
    claim: Claim | None,
    stop: StopRequest,
) -> Outcome:
    """Trains from the newest checkpoint (or the start) to the end, or until ``stop`` says so.

    Args:
        config: A checked configuration.
        derived: Its numbers, worked out for this machine and corpus.
        corpus: The opened data.
        run: The run directory.
        claim: The right to write there; None in all processes but the main one.
        stop: Asked at every step border.
    """
    with World(vars(config.distributed)) as world:
        return _fit(config, derived, corpus, run, claim, stop, world)


def _fit(
    config: Config,
    derived: Derived,
    corpus: Corpus,
    run: Path,
    claim: Claim | None,
    stop: StopRequest,
    world: World,
) -> Outcome:
    params, shown = config.training.training_params, config.logging.logging_params

    # --- device and seeds -----------------------------------------------------------------------
    device = choose_device(world.local_rank)
    precision = Precision(device, params.dtype)
    if params.deterministic:
        torch.use_deterministic_algorithms(True)
    checkpoint.seed_everything(params.seed)

    # --- model ----------------------------------------------------------------------------------
    model = build_model(config.model.family, config.model.config).to(device)
    if params.compile:
        model.compile()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.checkpoint.init_from:
        initial = checkpoint.load(Path(config.checkpoint.init_from).expanduser())
        model.load_state_dict(initial.state["model"])
        log.info("initial weights from %s", initial.path)

    # --- optimizer, schedule, data --------------------------------------------------------------
    roles: dict[str, str] = model.parameter_roles()  # type: ignore[operator]
    optimizer = build_optimizer(config.optimizer.optimizer_params, model.named_parameters(), roles)
    schedule = multiplier(config.lr_scheduler["name"], derived.max_steps, **derived.schedule)
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

    # --- resume ---------------------------------------------------------------------------------
    now = Progress()
    here = numerics(device, world.size, params.dtype, params.compile)
    checkpoint.seed_everything(params.seed + world.rank)  # dropout differs between ranks
    resume_from = world.tell(_resume_point(config, claim) if claim else None)
    if resume_from is not None:
        saved = checkpoint.load(resume_from, rank=world.rank).state
        now = Progress(**saved["progress"])
        if config.checkpoint.load.model:
            model.load_state_dict(saved["model"])
        if config.checkpoint.load.optimizer:
            optimizer.load_state_dict(saved["optimizer"])
            precision.scaler.load_state_dict(saved["scaler"])
        if not config.checkpoint.load.scheduler:
            now.schedule_start = now.step
        if config.checkpoint.load.data:
            loader.load_state_dict(saved["loader"])
        checkpoint.set_random_state(saved["random"], device)
        _warn_if_numerics_differ(saved["numerics"], here)
        log.info("resumed from %s", resume_from)

    # --- what is written ------------------------------------------------------------------------
    if claim is not None:
        if resume_from is not None:
            checkpoint.set_aside_later(run, now.step)
        claim.note(start_step=now.step, numerics=here)
    saver = _Saver(config, run, claim, world, stop)
    recorder = Recorder(
        config.logging,
        run,
        claim,
        start_step=now.step,
        max_steps=derived.max_steps,
        saved_step=now.step,
    )
    profiler = StepProfiler(config.profile, run, world.rank)

    # --- the loop -------------------------------------------------------------------------------
    outcome: Outcome | None = None
    skipped = 0
    logged_step, logged_seconds = now.step, now.seconds
    model.train()
    with recorder, profiler:
        while now.step < derived.max_steps and outcome is None:
            began = time.perf_counter()
            step = now.step + 1
            is_first, is_last = step == 1, step == derived.max_steps
            is_logged = is_first or is_last or step % derived.log_interval == 0
            rate = schedule(now.step - now.schedule_start)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate

            # forward and backward over the parts of the global batch
            loss = torch.zeros((), device=device)
            for _ in range(derived.accumulation_steps):
                x_BT, y_BT = (t.to(device, non_blocking=True) for t in loader.next_batch())
                with precision.autocast():
                    logits_BTV = model(x_BT)
                part = training_loss(logits_BTV, y_BT, **vars(params.loss))
                part = part / derived.accumulation_steps
                precision.backward(part)
                loss += part.detach()
            world.average_gradients(parameters)
            precision.unscale(optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(parameters, params.max_grad_norm or math.inf)

            # What is not finite never reaches the weights. On a GPU it is looked at only where the
            # host waits for the device anyway: at logged steps, which include every save.
            if is_logged or device.type == "cpu" or params.nan_policy == "skip":
                mean_loss = (world.sum(loss) / world.size).item()
                # with float16 an infinite gradient is the loss scaler's to handle
                norm = 0.0 if precision.scaler.is_enabled() else grad_norm.item()
                trouble = _trouble(mean_loss, norm, derived.divergence_loss)
                skipped = skipped + 1 if trouble else 0
                if trouble and params.nan_policy == "raise":
                    raise FloatingPointError(f"step {step}: {trouble}")
                if trouble and (params.nan_policy == "stop" or skipped == MAX_SKIPPED):
                    outcome = Outcome("diverged", f"step {step}: {trouble}")
                    now.final["train_loss"] = mean_loss
                    recorder.write(_row("train", step, now, derived, train_loss=mean_loss))
                    break
                if trouble:
                    log.warning("step %d is skipped: %s", step, trouble)

            if is_logged:
                precision.synchronize()
            update_began = time.perf_counter()
            if not skipped:
                precision.step(optimizer)
            if is_logged:
                precision.synchronize()
            ended = time.perf_counter()
            model.zero_grad(set_to_none=True)
            now.step = step
            now.seconds += ended - began
            stop.slowest_step = max(stop.slowest_step, ended - began)
            profiler.step(step)

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
            is_evaluated = is_last or bool(
                derived.eval_interval and step % derived.eval_interval == 0
            )
            if is_evaluated:
                val_loss = evaluate(
                    model,
                    corpus.val,
                    context_length=derived.context_length,
                    batch_size=derived.eval_batch_size,
                    tokens=shown.eval_tokens,
                    precision=precision,
                    world=world,
                )
                now.final["val_loss"] = val_loss
                recorder.write(_row("eval", step, now, derived, val_loss=val_loss))
                if not math.isfinite(val_loss):
                    outcome = Outcome("diverged", f"step {step}: val_loss is {val_loss}")
                    break
                if now.best["val_loss"] is None or val_loss < now.best["val_loss"]:
                    now.best = {"val_loss": val_loss, "step": step}
            asked = stop.check()
            if world.any(asked is not None) and not is_last:
                outcome = Outcome(*(asked or ("preempted", "another process was asked to stop")))
            if outcome is not None or saver.is_due(step, is_last, derived.save_interval):
                recorder.saved_step = saver.save(
                    {
                        "progress": asdict(now),
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": precision.scaler.state_dict(),
                        "loader": loader.state_dict(),
                        "random": checkpoint.random_state(device),
                        "numerics": here,
                        "run_id": config.run_id,
                    },
                    step,
                    metric=now.final[config.checkpoint.monitor] if is_evaluated else None,
                    recorder=recorder,
                    must_succeed=is_last or outcome is not None,
                )

    # --- the end --------------------------------------------------------------------------------
    outcome = outcome or Outcome("completed", f"all {derived.max_steps} steps")
    outcome.step, outcome.seconds = now.step, now.seconds
    outcome.tokens = now.step * derived.tokens_per_step
    outcome.final, outcome.best = now.final, now.best
    outcome.weights = weights_hash(model.named_parameters())
    recorder.finish(now.step, outcome.state, outcome.reason)
    if claim is not None:
        claim.end(asdict(outcome), derived.max_steps)
    recorder.wait(PREEMPTED_WAIT_S if outcome.state == "preempted" else math.inf)
    return outcome


class _Saver:
    """When to save, and what to do when that fails."""

    def __init__(
        self, config: Config, run: Path, claim: Claim | None, world: World, stop: StopRequest
    ) -> None:
        self.settings, self.run, self.claim = config.checkpoint, run, claim
        self.world, self.stop = world, stop
        self._failures = 0
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def is_due(self, step: int, is_last: bool, interval: int | None) -> bool:
        """Whether the state after ``step`` is to be saved; all processes agree."""
        if is_last:
            return self.settings.save_final
        minutes = self.settings.save_minutes
        is_late = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        is_on_step = interval is not None and step % interval == 0
        return is_on_step or (minutes is not None and self.world.any(is_late))

    def save(
        self,
        state: dict[str, Any],
        step: int,
        *,
        metric: float | None,
        recorder: Recorder,
        must_succeed: bool,
    ) -> int:
        """Saves and prunes; returns the newest saved step. A full disk is tried again later.

        Raises:
            StorageError: It failed ``MAX_FAILED_SAVES`` times in a row, or there is no later.
        """
        began = time.monotonic()
        generators = self.world.gather({"random": state["random"]})
        others = {checkpoint.rank_file(r): g for r, g in enumerate(generators) if r > 0}
        if self.claim is not None:
            try:
                recorder.sync()
                checkpoint.save(self.claim, step, state, metric=metric, extra=others)
                checkpoint.prune(
                    self.run,
                    keep_last=self.settings.keep_last,
                    keep_top_k=self.settings.keep_top_k,
                    mode=self.settings.mode,
                )
                self._failures, self._saved_step = 0, step
            except (checkpoint.StorageError, OSError) as error:
                self._failures += 1
                log.warning("%s (failure %d of %d)", error, self._failures, MAX_FAILED_SAVES)
                if must_succeed or self._failures == MAX_FAILED_SAVES:
                    raise checkpoint.StorageError(str(error)) from error
        self.world.barrier()
        self._saved_at = time.monotonic()
        self.stop.slowest_save = max(self.stop.slowest_save, self._saved_at - began)
        return self._saved_step


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


def _resume_point(config: Config, claim: Claim) -> Path | None:
    """The checkpoint to start from, as ``checkpoint.resume`` says."""
    status = files.read_json(claim.run / layout.STATUS) or {}
    checkpoint.sweep(claim.run)
    return checkpoint.find(
        claim.run,
        config.checkpoint.resume,
        config.checkpoint.mode,
        saved_step=status.get("saved_step", 0),
    )


def _warn_if_numerics_differ(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changed:
        log.warning("this resume is not bit-exact: %s", ", ".join(changed))


def _write_provenance(
    config: Config,
    run: Path,
    model: torch.nn.Module,
    optimizer: RoutedOptimizer,
    loader: Loader,
    corpus: Corpus,
    device: torch.device,
) -> None:
    """``run.json``, once: where the run comes from and what it started from."""
    if (run / layout.PROVENANCE).exists():
        return
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = sum(row["numel"] for row in optimizer.table if row["role"] == "embedding")
    log.info("%d parameters, %d without embeddings", total, total - embedding)
    for rule, role in sorted({(row["rule"], row["role"]) for row in optimizer.table}):
        rows = [row for row in optimizer.table if (row["rule"], row["role"]) == (rule, role)]
        log.info(
            "%s drives %d %s parameters in %d tensors, lr %g, weight_decay %g",
            rule,
            sum(row["numel"] for row in rows),
            role,
            len(rows),
            rows[0]["lr"],
            rows[0]["weight_decay"],
        )
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
