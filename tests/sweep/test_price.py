"""What a sweep takes: by hand, against the models themselves, and from runs that were done."""

import itertools
import json
from dataclasses import replace

import pytest
import yaml

from gptopt import layout
from gptopt.config.compose import compose
from gptopt.models import build_model
from gptopt.sweep.price import cost, gpt_parameters, price

TINY = {
    "vocab_size": 100, "vocab_multiple": 64, "block_size": 16, "n_layer": 2, "n_embd": 24,
    "n_head": 4, "head_dim": None, "rope_base": 1e4, "rope_dim": None, "norm_eps": 1e-5,
    "dropout_embd": 0.0, "dropout_attn": 0.0, "dropout_resid": 0.0, "init_std": 0.02,
    "depth_scaled_init": True, "mup_base_n_embd": None,
}  # fmt: skip


@pytest.mark.parametrize("pos", ["learned", "rope", "none"])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_parameters_are_counted_as_the_model_has_them(pos, norm):
    flags = itertools.product((True, False), repeat=3)
    rest = itertools.product(("pre", "post"), ("gelu", "swiglu"), (None, 2), (None, 40))
    for (bias, qk_norm, tie), (position, act, n_kv_head, n_inner) in itertools.product(flags, rest):
        config = TINY | {
            "pos": pos, "norm": norm, "bias": bias, "qk_norm": qk_norm, "tie_embeddings": tie,
            "norm_position": position, "act": act, "n_kv_head": n_kv_head, "n_inner": n_inner,
        }  # fmt: skip
        model = build_model("gpt", config)
        assert gpt_parameters(config) == sum(p.numel() for p in model.parameters()), config


def test_gpt2_has_the_parameters_that_its_authors_tell():
    # 124,439,808 with the vocabulary of 50,257, not rounded up
    config = compose(["model=gpt2", "model.config.vocab_multiple=1"]).model.config
    assert gpt_parameters(config) == 124_439_808


def raw(*overrides):
    config = compose(overrides)
    return yaml.safe_load(config.source.composed) | {"model": vars(config.model)}


@pytest.mark.parametrize(
    ("overrides", "tokens"),
    [
        (["max_steps=10", "batch_size=4"], 10 * 4 * 128),
        (["max_steps=10", "batch_size=4", "accumulation_steps=3"], 10 * 12 * 128),
        (["max_steps=null", "max_tokens=1000", "batch_size=2"], 3 * 2 * 128),  # whole steps
        (["max_steps=10", "max_tokens=1000", "batch_size=2"], 3 * 2 * 128),
        (["max_steps=null", "num_epochs=1"], None),
        (["max_steps=10", "num_epochs=1"], None),  # the data may be shorter
    ],
)
def test_tokens_follow_from_the_tightest_limit(overrides, tokens):
    told = cost(raw(*(f"training.training_params.{text}" for text in overrides)))
    assert told.tokens == tokens


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ([], 2),  # every ten minutes: keep_last
        (["save_minutes=null"], 1),
        (["save_minutes=null", "save_final=false"], 0),
        (["save_minutes=null", "save_interval=100", "keep_last=9"], 3),
        (["save_minutes=null", "save_interval=200", "keep_last=9"], 2),  # step 200 and the last
        (["save_minutes=null", "save_interval=0.1", "keep_last=2", "keep_top_k=1"], 3),
    ],
)
def test_the_checkpoints_that_stay_are_counted(overrides, kept):
    assert cost(raw(*(f"checkpoint.{text}" for text in overrides))).checkpoints == kept


def finish(run, *, seconds, tokens, size=0, threads=1, device="a processor"):
    """What a completed run leaves behind, as far as a price asks."""
    files = {
        layout.TERMINAL["completed"]: {"seconds": seconds, "tokens": tokens},
        "attempts/0001.json": {"numerics": {"device": device, "threads": threads, "world_size": 1}},
        "checkpoints/step-00000005/manifest.json": {"files": {"state.pt": {"size": size}}},
    }
    for name, content in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps(content))


FEW = {"steps": 10, "bs": 4, "checkpoint.save_minutes": None}
TOKENS = 10 * 4 * 128


def test_seconds_and_disk_are_those_of_finished_runs_of_the_plan(planned):
    content = FEW | {"seed": [0, 1, 2, 3]}
    for run, seconds in zip(planned(content).runs[:2], (1.0, 3.0), strict=True):
        finish(run.run, seconds=seconds, tokens=TOKENS, size=1000, threads=4)
    told = planned(content).price()
    assert told.runs == 2
    assert told.tokens == 2 * TOKENS
    assert told.seconds == pytest.approx(2 * 4 * 2.0)  # two runs, four threads, median 2 s
    assert (told.seconds_unknown, told.earlier_runs) == (0, 2)
    assert told.device == "one thread of a processor"
    assert (told.disk_bytes, told.disk_unmeasured) == (2 * 1000, 0)


def test_of_an_interrupted_run_only_the_rest_behind_its_last_checkpoint_counts(planned):
    content = FEW | {"seed": [0, 1, 2]}
    done, interrupted, _ = (run.run for run in planned(content).runs)
    finish(done, seconds=2.0, tokens=TOKENS)
    for name in (
        "attempts/0001.json",
        "checkpoints/step-00000002/a",
        "checkpoints/step-00000006/a",
    ):
        (interrupted / name).parent.mkdir(parents=True, exist_ok=True)
        (interrupted / name).write_text("{}")
    told = planned(content).price()
    assert (told.runs, told.tokens) == (2, TOKENS + 4 * 4 * 128)  # four of ten steps are left
    assert told.seconds == pytest.approx(2.0 + 0.4 * 2.0)


def test_other_learning_rates_have_the_same_shape_and_other_batches_have_not(planned, tmp_path):
    (earlier,) = planned(FEW | {"lr": 0.5}).runs
    finish(earlier.run, seconds=1.0, tokens=TOKENS, device="NVIDIA H100")
    resolved = raw("training.training_params.batch_size=4", "training.training_params.max_steps=10")
    (earlier.run / layout.RESOLVED).write_text(yaml.safe_dump(resolved))
    told = planned(FEW | {"steps": 20, "seed": [5, 6]}).price()
    assert told.seconds == pytest.approx(2 * 2.0)
    assert told.device == "NVIDIA H100"
    other = planned(FEW | {"bs": 8}).price()
    assert (other.seconds, other.seconds_unknown, other.earlier_runs) == (0, 1, 0)


def test_without_earlier_runs_time_is_unknown_and_disk_a_lower_bound(planned):
    told = planned(FEW | {"seed": [0, 1]}).price()
    config = compose([]).model.config
    assert told.disk_bytes == 2 * 4 * gpt_parameters(config)
    assert told.disk_unmeasured == 2
    lines = told.lines()
    assert lines[0].startswith("tokens: 10.2 k")
    assert "unknown" in lines[1]
    assert "at least" in lines[2]


def test_damaged_and_foreign_directories_cost_nothing(planned):
    runs = planned(FEW | {"seed": [0, 1, 2]}).runs
    for run, text in zip(runs, ("", "[]", '{"seconds": 0}'), strict=True):
        run.run.mkdir(parents=True)
        (run.run / layout.TERMINAL["completed"]).write_text(text)
        (run.run / layout.RESOLVED).write_text("{")
    told = planned(FEW | {"seed": [5]}).price()
    assert (told.seconds_unknown, told.earlier_runs) == (1, 0)


def test_a_model_that_is_not_known_here_has_no_number_of_parameters():
    told = replace(cost(raw()), parameters=None)
    assert price([told], [], []).disk_unknown == 1
