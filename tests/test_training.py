"""The loop: what a step is, what a resume takes along, and what is done about NaN."""

import copy
import functools
import json
import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from tiny import checkpoints, in_step, marker, result, rows, stopped_at, tiny

import gptopt
from gptopt import checkpoint, gradient, layout, training
from gptopt.config.problems import ConfigError
from gptopt.data import DataError, open_corpus
from gptopt.data.batch import Reading
from gptopt.data.loader import Loader
from gptopt.run import run_directory
from gptopt.state import read_state

NO_DROPOUT = tuple(f"model.config.dropout_{where}=0.0" for where in ("embd", "attn", "resid"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a run leaves that nobody disturbs."""
    return result(gptopt.train(tiny(tmp_path_factory.mktemp("undisturbed"))).run)


def column(run, key):
    return [row[key] for row in rows(run) if key in row]


def losses(run, event="train"):
    return column(run, f"{event}_loss")


def task_log(run):
    return (run / layout.TASK_LOG).read_text()


# --- one step -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "accumulation_steps"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation_is_the_same_batch_in_parts(tmp_path, batch_size, accumulation_steps):
    # float32 sums in another order: 1e-6 of losses around 5 is some units in the last place.
    # The norms show the size of the gradient, which clipping and AdamW hide from the losses.
    def train(batch, parts):
        config = tiny(
            tmp_path / str(batch),
            *NO_DROPOUT,
            f"training.training_params.batch_size={batch}",
            f"training.training_params.accumulation_steps={parts}",
            "logging.logging_params.eval_batch_size=4",
        )
        run = gptopt.train(config).run
        return losses(run), losses(run, "val"), column(run, "grad_norm")

    whole, parts = train(8, 1), train(batch_size, accumulation_steps)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-6)
    np.testing.assert_allclose(parts[2], whole[2], rtol=1e-5)


def test_validation_loss_does_not_depend_on_the_evaluation_batch_size(tmp_path):
    # 500 tokens are 15.6 windows of 32: the last batch is a part of one. 1e-6 as above.
    found = []
    for size in (1, 3, 16, 64):
        config = tiny(tmp_path / str(size), f"logging.logging_params.eval_batch_size={size}")
        run = gptopt.train(config).run
        found.append(losses(run, "val"))
        assert marker(run)["weights"]
    np.testing.assert_allclose(found, [found[0]] * 4, rtol=0, atol=1e-6)


def test_evaluating_more_often_changes_no_weight(tmp_path, expected):
    run = gptopt.train(tiny(tmp_path, "logging.logging_params.eval_interval=1")).run
    assert marker(run)["weights"] == expected[0]


def test_saving_more_often_changes_no_weight(tmp_path, expected):
    config = tiny(tmp_path, "checkpoint.save_interval=1", "checkpoint.save_minutes=0.00001")
    assert result(gptopt.train(config).run) == expected


def test_each_forward_takes_the_next_windows_of_the_order(tmp_path):
    seen, forward = [], gradient.training_loss

    def spy(logits, targets, **settings):
        seen.append(targets.clone())
        return forward(logits, targets, **settings)

    config = tiny(tmp_path, "training.training_params.max_steps=3")
    with mock.patch.object(gradient, "training_loss", spy):
        gptopt.train(config)
    corpus = open_corpus(config.data, config.paths.data_root)
    at_once = Loader(
        corpus.train,
        context_length=32,
        batch_size=12,
        seed=0,
        shuffle=True,
        rank=0,
        world_size=1,
        reading=Reading.of(config.data, 256),
        prefetch=0,
        device=torch.device("cpu"),
    )
    assert torch.equal(torch.cat(seen), at_once.next_batch().targets)


def test_gradients_are_clipped_to_the_norm_of_the_whole_batch(tmp_path):
    norms, clip = [], torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        before = clip(parameters, limit)
        after = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        norms.append((before.item(), after.item()))
        return before

    config = tiny(tmp_path, "training.training_params.max_grad_norm=0.1")
    with mock.patch("torch.nn.utils.clip_grad_norm_", spy):
        gptopt.train(config)
    assert column(run_directory(config), "grad_norm") == [before for before, _ in norms]
    assert len(norms) == 24  # once a step, not once a forward
    # torch scales by limit / (norm + 1e-6)
    assert all(after <= min(before, 0.1) * (1 + 1e-5) for before, after in norms)


# --- resume -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [
        ("adamw", "float32"),
        ("muon", "float32"),
        ("muon", "bfloat16"),
        pytest.param("adamw", "bfloat16", marks=pytest.mark.slow),
        pytest.param("nadamw", "float32", marks=pytest.mark.slow),
        pytest.param("sgd", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, optimizer, dtype):
    settings = (f"optimizer={optimizer}", f"training.training_params.dtype={dtype}")
    undisturbed = gptopt.train(tiny(tmp_path / "undisturbed", *settings))
    config = tiny(tmp_path / "stopped", *settings)
    stopped_at(config, 9)
    assert gptopt.train(config).step == 24
    assert result(run_directory(config)) == result(undisturbed.run)


def test_a_resumed_float16_run_keeps_its_loss_scale(tmp_path):
    dtype = "training.training_params.dtype=float16"
    eager = functools.partial(torch.amp.GradScaler, growth_interval=2)  # doubles every two steps
    with mock.patch("torch.amp.GradScaler", eager):
        undisturbed = gptopt.train(tiny(tmp_path / "undisturbed", dtype))
        config = tiny(tmp_path / "stopped", dtype)
        run = stopped_at(config, 9)
        saved = checkpoint.load(layout.checkpoint_dir(run, 9)).state
        assert saved["scaler"]["scale"] != 2**16  # what it starts with
        gptopt.train(config)
    assert result(run) == result(undisturbed.run)


@pytest.mark.parametrize("piece", ["random", "loader", "optimizer", "model", "progress"])
def test_every_piece_of_the_state_is_needed(tmp_path, expected, piece):
    """Puts the piece of another step into the checkpoint: the run must not end the same."""
    config = tiny(tmp_path, "checkpoint.keep_last=3")
    run = stopped_at(config, 9)
    state = checkpoint.load(layout.checkpoint_dir(run, 9)).state
    other = copy.deepcopy(checkpoint.load(layout.checkpoint_dir(run, 4)).state)
    assert state.keys() == other.keys()
    state[piece] = other[piece]
    lease = training.Lease.take(run)
    checkpoint.save(lease, 9, state, metric=None)
    lease.release()
    gptopt.train(config)
    assert result(run) != expected


@pytest.mark.parametrize(
    "piece", ["model", "optimizer", "scaler", "loader", "random", "numerics", "progress"]
)
def test_a_checkpoint_without_a_piece_is_refused(tmp_path, piece):
    config = tiny(tmp_path)
    run = stopped_at(config, 9)
    state = checkpoint.load(layout.checkpoint_dir(run, 9)).state
    del state[piece]
    lease = training.Lease.take(run)
    checkpoint.save(lease, 9, state, metric=None)
    lease.release()
    with pytest.raises(Exception, match=piece):
        gptopt.train(config)


def test_without_the_optimizer_a_resume_starts_its_averages_anew(tmp_path, expected):
    config = tiny(tmp_path, "checkpoint.load.optimizer=false")
    stopped_at(tiny(tmp_path), 9)
    with _states_before_step_1() as states:
        gptopt.train(config)
    assert states == [{}]
    assert marker(run_directory(config))["weights"] != expected[0]


def test_with_the_optimizer_a_resume_has_its_averages(tmp_path):
    stopped_at(tiny(tmp_path), 9)
    with _states_before_step_1() as states:
        gptopt.train(tiny(tmp_path))
    assert {value["step"].item() for value in states[0].values()} == {9.0}


def _states_before_step_1():
    """Collects the optimizer's state as it is before the first step of an attempt."""
    found, build = [], training.build_optimizer

    class Spy:
        def __enter__(self):
            self.patch = mock.patch.object(training, "build_optimizer", self.build)
            self.patch.start()
            return found

        def __exit__(self, *_):
            self.patch.stop()

        def build(self, *args):
            optimizer = build(*args)
            step = optimizer.step

            def first():
                if not found:
                    found.append(copy.deepcopy(optimizer.state_dict()["state"]))
                step()

            optimizer.step = first
            return optimizer

    return Spy()


def test_without_the_scheduler_a_resume_warms_up_again(tmp_path):
    settings = ("lr_scheduler.warmup_steps=5", "lr_scheduler.warmup_fraction=null")
    run = stopped_at(tiny(tmp_path, *settings), 9)
    gptopt.train(tiny(tmp_path, *settings, "checkpoint.load.scheduler=false"))
    rates = column(run, "lr")
    assert rates[9:15] == rates[:6]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 12 of 24 steps are left: half a cosine over 12, at its middle after 6, near 0 at the end
        (
            ["lr_scheduler=cosine", "lr_scheduler.warmup_steps=0"],
            {0: 1.0, 6: 0.5, 11: (1 + math.cos(math.pi * 11 / 12)) / 2},
        ),
        # a decay over half of 12 steps: it starts from 1 and would be 0 after the last step
        (
            ["lr_scheduler.warmup_fraction=0.25", "lr_scheduler.decay_fraction=0.5"],
            {0: 1 / 3, 2: 1.0, 6: 1.0, 9: 0.5, 11: 1 / 6},
        ),
    ],
)
def test_a_schedule_that_starts_anew_spans_the_steps_that_are_left(tmp_path, schedule, expected):
    settings = (*schedule, "optimizer.optimizer_params.lr=0.001")
    run = stopped_at(tiny(tmp_path, *settings), 12)
    anew = tiny(tmp_path, *settings, "checkpoint.load.scheduler=false")
    with in_step(3, lambda: (run / layout.STOP_FILE).touch()):
        assert gptopt.train(anew).step == 15
    gptopt.train(tiny(tmp_path, *settings))  # obeyed once: it goes on where it was
    rates = column(run, "lr")[12:]
    assert len(rates) == 12
    assert {step: rates[step] / 0.001 for step in expected} == pytest.approx(expected)


def test_without_the_data_a_resume_reads_from_the_start(tmp_path):
    stopped_at(tiny(tmp_path), 9)
    seen, load = [], Loader.next_batch

    def spy(loader):
        seen.append(loader.samples)
        return load(loader)

    with mock.patch.object(Loader, "next_batch", spy):
        gptopt.train(tiny(tmp_path, "checkpoint.load.data=false"))
    assert seen == list(range(0, 15 * 4, 2))  # 15 steps of 2 x 2 windows


def test_without_the_model_a_resume_has_fresh_weights(tmp_path):
    run = stopped_at(tiny(tmp_path), 9)
    gptopt.train(tiny(tmp_path, "checkpoint.load.model=false"))
    curve = losses(run)
    # bytes: a fresh model knows nothing, ln 256 = 5.5
    assert curve[9] == pytest.approx(math.log(256), abs=0.15)
    assert curve[8] < curve[9] - 0.2


def test_a_run_can_go_back_to_a_step(tmp_path, expected):
    run = stopped_at(tiny(tmp_path, "checkpoint.keep_last=5"), 13)
    gptopt.train(tiny(tmp_path, "checkpoint.resume=8"))
    assert json.loads(layout.attempt_file(run, 2).read_text())["start_step"] == 8
    assert "step-00000013.superseded" in checkpoints(run)
    assert result(run) == expected


def test_going_back_happens_once_however_often_the_same_command_is_stopped(tmp_path, expected):
    run = stopped_at(tiny(tmp_path, "checkpoint.keep_last=9"), 13)
    again = tiny(tmp_path, "checkpoint.keep_last=9", "checkpoint.resume=8")
    with in_step(3, lambda: (run / layout.STOP_FILE).touch()):
        assert gptopt.train(again).step == 11
    with in_step(3, lambda: (run / layout.STOP_FILE).touch()):
        assert gptopt.train(again).step == 14
    assert gptopt.train(again).step == 24
    assert result(run) == expected


def test_a_run_can_go_back_to_its_best_checkpoint(tmp_path):
    run = stopped_at(tiny(tmp_path, "checkpoint.keep_last=9", "checkpoint.save_interval=6"), 15)
    for step, metric in {6: 1.0, 12: 2.0}.items():
        path = layout.checkpoint_dir(run, step) / layout.MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text()) | {"metric": metric}))
    gptopt.train(tiny(tmp_path, "checkpoint.resume=best"))
    assert json.loads(layout.attempt_file(run, 2).read_text())["start_step"] == 6


def test_a_run_can_start_from_the_checkpoint_of_another(tmp_path, expected):
    other = stopped_at(tiny(tmp_path / "other"), 9)
    path = layout.checkpoint_dir(other, 9)
    run = gptopt.train(tiny(tmp_path / "this", f"checkpoint.resume={path}")).run
    assert marker(run)["weights"] == expected[0]
    assert rows(run) == [row for row in expected[1] if row["step"] > 9]


def test_init_from_takes_the_weights_alone(tmp_path):
    other = stopped_at(tiny(tmp_path / "other"), 9)
    path = layout.checkpoint_dir(other, 9)
    weights = checkpoint.load(path).state["model"]
    config = tiny(tmp_path / "this", f"checkpoint.init_from={path}")
    built, build = [], training.build_optimizer

    def spy(params, named, *rest):
        named = dict(named)
        built.append({name: parameter.detach().clone() for name, parameter in named.items()})
        return build(params, named.items(), *rest)

    with mock.patch.object(training, "build_optimizer", spy):
        run = stopped_at(config, 3)
    assert all(torch.equal(value, weights[name]) for name, value in built[0].items())
    first = json.loads((run / "metrics.0001.jsonl").read_text().splitlines()[0])
    assert first["start_step"] == 0
    # A run that has begun needs the checkpoint it came from no more.
    (path / checkpoint.STATE).unlink()
    (path / layout.MANIFEST).unlink()
    assert gptopt.train(config).state == "completed"


@pytest.mark.parametrize("key", ["init_from", "resume"])
def test_weights_of_another_model_are_refused_by_name_and_shape(tmp_path, key):
    other = stopped_at(tiny(tmp_path / "other"), 9)
    path = layout.checkpoint_dir(other, 9)
    config = tiny(tmp_path / "this", f"checkpoint.{key}={path}", "model.config.n_embd=64")
    with pytest.raises(ConfigError) as raised:
        gptopt.train(config)
    said = str(raised.value)
    # 256 token ids of the grammar's bytes, n_embd 32 there and 64 here
    assert f"{path}: it holds the weights of another model: " in said
    assert "is (256, 32) there and (256, 64) here" in said


def test_the_number_of_threads_is_the_one_asked_for_and_its_change_is_said(tmp_path):
    run = stopped_at(tiny(tmp_path, "cluster.threads=2"), 9)
    assert json.loads((run / layout.PROVENANCE).read_text())["threads"] == 2
    gptopt.train(tiny(tmp_path, "cluster.threads=1"))
    assert "this resume is not bit-exact: threads 2 -> 1\n" in task_log(run)


def test_flops_count_every_pass_that_the_optimizer_asks_for(tmp_path):
    mars = "optimizer=mars", "optimizer.optimizer_params.exact=true"
    for asked, passes in ((), 1), (mars, 2):
        run = stopped_at(tiny(tmp_path, *asked), 1)
        facts = json.loads((run / layout.PROVENANCE).read_text())
        # 2 per parameter forward and 4 backward
        assert facts["flops_per_token"] == passes * 6 * facts["parameters"]["non_embedding"]


def test_other_numerics_are_said_when_a_run_goes_on(tmp_path):
    config = tiny(tmp_path)
    run = stopped_at(config, 9)
    assert "bit-exact" not in task_log(run)
    numerics = training.numerics

    def other(*args):
        return numerics(*args) | {"torch": "3.0", "device": "abacus"}

    with mock.patch.object(training, "numerics", other):
        gptopt.train(config)
    before = numerics(torch.device("cpu"), 1, "float32", False, "adamw")
    words = f"torch {before['torch']} -> 3.0, device {before['device']} -> abacus"
    assert f"this resume is not bit-exact: {words}\n" in task_log(run)


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    # As with the corpus of the standard library, where another Python is installed meanwhile.
    config = tiny(tmp_path)
    run = stopped_at(config, 9)
    opened = open_corpus(config.data, config.paths.data_root)
    other = replace(opened, fingerprint="0" * 64)
    with (
        mock.patch("gptopt.data.open_corpus", return_value=other),
        pytest.raises(DataError, match="and this is 000000000000: its files have changed"),
    ):
        gptopt.train(config)
    assert read_state(run).step == 9


# --- what is not finite -------------------------------------------------------------------------

POLICY = "training.training_params.nan_policy={}"


def _nan_loss(steps, logits, targets, *, loss, calls, **settings):
    calls.append(0)
    value = loss(logits, targets, **settings)
    return value * (math.nan if (len(calls) + 1) // 2 in steps else 1.0)


def nan_in(*steps):
    """While entered, the training loss of these steps is NaN."""
    spoiled = functools.partial(_nan_loss, steps, loss=gradient.training_loss, calls=[])
    return mock.patch.object(gradient, "training_loss", spoiled)


def test_a_nan_ends_the_run_as_diverged_with_the_weights_of_the_step_before(tmp_path, expected):
    config = tiny(tmp_path)
    with nan_in(10):
        ended = gptopt.train(config)
    assert (ended.state, ended.step, ended.exit_code) == ("diverged", 9, 0)
    assert ended.reason == "step 10: loss is nan"
    last = json.loads((ended.run / "metrics.0001.jsonl").read_text().splitlines()[-2])
    assert (last["step"], last["train_loss"], last["nonfinite"]) == (
        10,
        None,
        {"train_loss": "nan"},
    )
    reference = stopped_at(tiny(tmp_path / "reference"), 9)
    weights = checkpoint.load(layout.checkpoint_dir(reference, 9)).state["model"]
    assert marker(ended.run, "diverged")["weights"] == training.weights_hash(weights.items())
    assert checkpoints(ended.run) == ["step-00000004", "step-00000008"]
    assert marker(ended.run, "diverged")["best"]["step"] == 6


def test_a_huge_rate_ends_as_diverged_and_is_not_run_again(tmp_path):
    config = tiny(tmp_path, "optimizer.optimizer_params.lr=1000")
    ended = gptopt.train(config)
    assert (ended.state, ended.exit_code) == ("diverged", 0)
    assert marker(ended.run, "diverged")["reason"] == ended.reason
    assert read_state(ended.run).state == "diverged"
    again = gptopt.train(config)
    assert (again.state, again.skipped) == ("diverged", True)
    assert layout.attempt_numbers(ended.run) == [1]


def test_policy_raise_fails_the_run(tmp_path):
    config = tiny(tmp_path, POLICY.format("raise"))
    with nan_in(10), pytest.raises(FloatingPointError, match="step 10: loss is nan"):
        gptopt.train(config)
    assert read_state(run_directory(config)).state == "failed"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_policy_skip_leaves_the_step_out(tmp_path, dtype):
    config = tiny(tmp_path, POLICY.format("skip"), f"training.training_params.dtype={dtype}")
    with nan_in(10, 11):
        ended = gptopt.train(config)
    assert (ended.state, ended.step) == ("completed", 24)
    norms = {row["step"]: row.get("param_norm") for row in rows(ended.run) if "param_norm" in row}
    assert norms[9] == norms[10] == norms[11] != norms[12]
    assert "step 10 is skipped: loss is nan" in task_log(ended.run)


def test_policy_skip_gives_up_after_ten_in_a_row_also_over_a_resume(tmp_path):
    config = tiny(tmp_path, POLICY.format("skip"))
    with nan_in(*range(8, 24)):
        ended = gptopt.train(config)
    assert (ended.state, ended.step) == ("diverged", 16)  # 8 ... 17 are ten
    config = tiny(tmp_path / "stopped", POLICY.format("skip"))
    with nan_in(*range(8, 24)):
        stopped_at(config, 12)
    with nan_in(*range(1, 24)):
        assert (gptopt.train(config).state, gptopt.train(config).step) == ("diverged", 16)


def test_a_loss_above_the_limit_is_divergence_too(tmp_path):
    config = tiny(tmp_path, "training.training_params.divergence_loss=5.3")
    ended = gptopt.train(config)
    assert (ended.state, ended.step) == ("diverged", 0)
    assert "is above divergence_loss 5.3" in ended.reason


def evaluated(*values):
    """While entered, evaluations give these losses."""
    losses = [{"val_loss": value} for value in values]
    return mock.patch.object(training, "evaluate", side_effect=losses)


def test_the_best_checkpoints_by_validation_loss_are_kept(tmp_path):
    settings = ("checkpoint.save_interval=6", "checkpoint.keep_last=1", "checkpoint.keep_top_k=1")
    config = tiny(tmp_path, *settings)
    with evaluated(3.0, 1.0, 2.0, 4.0):
        run = gptopt.train(config).run
    assert checkpoints(run) == ["step-00000012", "step-00000024"]
    assert marker(run)["best"] == {"val_loss": 1.0, "step": 12}
    config = tiny(tmp_path / "worst", *settings, "checkpoint.mode=max")
    with evaluated(3.0, 1.0, 2.0, 2.0):
        run = gptopt.train(config).run
    assert checkpoints(run) == ["step-00000006", "step-00000024"]


def test_the_best_checkpoint_by_training_loss_needs_no_evaluation(tmp_path):
    settings = ("checkpoint.save_interval=6", "checkpoint.keep_last=1", "checkpoint.keep_top_k=1")
    by_train = ("checkpoint.monitor=train_loss", "logging.logging_params.eval_interval=null")
    run = gptopt.train(tiny(tmp_path, *settings, *by_train, "checkpoint.mode=max")).run
    assert checkpoints(run) == ["step-00000006", "step-00000024"]  # it only falls


def test_a_nan_is_never_the_best_checkpoint(tmp_path):
    with evaluated(3.0, math.nan):
        ended = gptopt.train(tiny(tmp_path, "checkpoint.save_interval=6"))
    assert (ended.state, ended.reason) == ("diverged", "step 12: val_loss is nan")
    assert marker(ended.run, "diverged")["best"] == {"val_loss": 3.0, "step": 6}
    assert checkpoints(ended.run) == ["step-00000006"]
