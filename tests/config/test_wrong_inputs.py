"""Wrong inputs, by the node they are about: one clear report, nothing created."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gptopt.config.compose import compose, compose_all
from gptopt.config.problems import ConfigError
from gptopt.config.typed import points
from gptopt.layout import ENTRY
from gptopt.run import exit_code_of, train

TRAINING = "training.training_params"
PARAMS = "optimizer.optimizer_params"
LOGGING = "logging.logging_params"

WRONG = {
    "model": [
        ("model=gpt3", "model=gpt3: there is no hydra_conf/model/gpt3.yaml. Did you mean 'gpt2'?"),
        ("model=null", "model=null: there is no hydra_conf/model/null.yaml. There are: gpt-large,"),
        ("model=[gpt2,gpt-tiny]", "it takes one option; model=a,b with -m sweeps"),
        ("+model=gpt2", "+model=gpt2: write model=gpt2 instead"),
        ("model.family=gtp", "there is no gptopt/models/gtp.py (yet). Did you mean 'gpt'?"),
        ("model.name=''", "model.name='': it takes one line of text, not empty"),
        ("model.config.n_layers=4", "Did you mean 'n_layer'? model.config takes: vocab_size,"),
        ("model.config.n_layer=0", "model.config.n_layer=0: it takes a whole number at least 1."),
        ("model.config.n_layer=three", "n_layer='three': it takes a whole number at least 1."),
        ("model.config.pos=rop", "it takes one of learned, rope, none. Did you mean 'rope'?"),
        ("model.config.n_head=5", "model.config.n_head=5 does not divide n_embd=96; 4 does"),
        ("model.config.n_kv_head=2", "n_kv_head=2 does not divide n_head=3; 1 does"),
        ("model.config.rope_dim=7", "an even number, at most the 32 dimensions of a head"),
        ("model.config.vocab_size=100", "data=stdlib has token ids up to 255; it takes at least"),
        ("model.config=3", "model.config=3: it takes a mapping {key: value}."),
    ],
    "optimizer": [
        ("optimizer=admaw", "hydra_conf/optimizer/admaw.yaml. Did you mean 'adamw'?"),
        (f"{PARAMS}.lrr=0.1", f"{PARAMS}.lrr=0.1: there is no such key. Did you mean 'lr'?"),
        ("lr=0.1", f"lr=0.1: there is no such key. Did you mean '{PARAMS}.lr'?"),
        (f"+{PARAMS}.momentum=0.9", f"{PARAMS}.momentum=0.9: there is no such key"),
        (f"{PARAMS}.lr=abc", f"{PARAMS}.lr='abc': it takes a number above 0."),
        (f"{PARAMS}.lr=-1", f"{PARAMS}.lr=-1: it takes a number above 0."),
        (f"{PARAMS}.lr=nan", f"{PARAMS}.lr=nan: it takes a finite number above 0."),
        (f"{PARAMS}.lr=1e400", f"{PARAMS}.lr=inf: it takes a finite number above 0."),
        (f"{PARAMS}.lr=true", f"{PARAMS}.lr=true: it takes a number above 0."),
        (f"{PARAMS}.betas=[0.9]", "a list of 2, each a number at least 0 and below 1."),
        (f"{PARAMS}.betas=[0.9,1]", "in which 1 should be a number at least 0 and below 1."),
        (f"{PARAMS}.no_decay=vector", "Did you mean ['vector']?"),
        (f"{PARAMS}.name={'x' * 5000}", "there is no gptopt/optim/xxx"),
        (f"{PARAMS}.name=sgd", f"{PARAMS}.name=sgd: write optimizer=sgd instead"),
        (f"~{PARAMS}.eps", f"~{PARAMS}.eps: a run needs all of its keys"),
        (f"{PARAMS}.lr=???", f"{PARAMS}.lr has no value yet; give it one: {PARAMS}.lr=..."),
        (f"{PARAMS}.lr=1e-3,1e-4", "a list of choices needs -m; for a list value write [a,b]"),
    ],
    "lr_scheduler": [
        ("lr_scheduler=cosin", "hydra_conf/lr_scheduler/cosin.yaml. Did you mean 'cosine'?"),
        ("lr_scheduler.name=cosine", "write lr_scheduler=cosine instead"),
        ("lr_scheduler.name=cosin", "lr_scheduler.name='cosin' is unknown. Did you mean 'cosine'?"),
        ("lr_scheduler.min_lr_ratio=2", "it takes a number at least 0 and at most 1."),
        ("lr_scheduler.decay_shape=lin", "Did you mean 'linear'?"),
        ("lr_scheduler.warmup_steps=290", "warmup_steps 290 + decay_steps 120 are more than"),
        ("lr_scheduler.warmup_fraction=0.7", "are more than the run's 300 steps"),
        ("lr_scheduler.decay_shape=exponential", "min_lr_ratio=0: an exponential decay never"),
    ],
    "data": [
        ("data=shakespere", "Did you mean 'shakespeare'?"),
        ("data=text", "data.path has no value yet; give it one: data.path=..."),
        ("data.format=txt", "there is no gptopt/data/formats/txt.py (yet). Did you mean 'text'?"),
        ("data.val_evry=2", "data.val_evry=2: there is no such key. Did you mean 'val_every'?"),
        ("data.val_every=0", "data.val_every=0: it takes a whole number at least 1 or null."),
        ("data.val_every=2.5", "data.val_every=2.5: it takes a whole number at least 1 or null."),
        ("data.val_every=1", "data.val_every=1 would hold out every file; it takes at least 2"),
        ("data=fineweb1B", "model.config.vocab_size=256: data=fineweb1B has token ids up to 50256"),
    ],
    "training": [
        ("training=tinny", "Did you mean 'tiny'?"),
        (f"{TRAINING}.batch_sise=4", "Did you mean 'batch_size'?"),
        ("training.batch_size=4", f"Did you mean '{TRAINING}.batch_size'?"),
        (
            f"{TRAINING}.batch_size=2.5",
            "batch_size=2.5: it takes a whole number at least 1 or null.",
        ),
        (
            f"{TRAINING}.max_tokens=1e9",
            "a whole number at least 1 or null. Did you mean 1000000000?",
        ),
        (f"{TRAINING}.dtype=bf16", "Did you mean 'bfloat16'?"),
        (f"{TRAINING}.compile=yes", "compile='yes': it takes true or false."),
        (f"{TRAINING}.seed=-1", "seed=-1: it takes a whole number at least 0"),
        (f"{TRAINING}.loss.label_smoothing=1", "it takes a number at least 0 and below 1."),
        (f"{TRAINING}.max_steps=null", "are all null; set one of them"),
        (f"{TRAINING}.max_tokens=100", "max_tokens 100 // tokens_per_step 1024 = 0 steps"),
        (f"{TRAINING}.context_length=256", "is longer than model.config.block_size=128"),
        (f"{TRAINING}.global_batch_size=30", "batch_size=8 does not divide; batch_size=6 does"),
    ],
    "logging": [
        ("logging=wandb", "logging=wandb: write +logging=wandb instead"),
        ("+logging=wanbd", "hydra_conf/logging/wanbd.yaml. Did you mean 'wandb'?"),
        ("+logging.trackers.comet={}", "there is no gptopt/tracking/comet.py (yet)"),
        ("logging.trackers.wandb.project=x", "is empty; +logging=NAME adds a tracker"),
        (f"{LOGGING}.log_interval=1.5", "a whole number of steps, or a share of the run between"),
        (f"{LOGGING}.log_interval=1.0", "Did you mean 1?"),
        (f"{LOGGING}.eval_interval=0", "a whole number of steps, or a share of the run between"),
        (f"{LOGGING}.level=verbose", "it takes one of debug, info, warning, error."),
    ],
    "checkpoint": [
        ("checkpoint.save_intervall=5", "Did you mean 'save_interval'?"),
        ("checkpoint.save_interval=-0.5", "a share of the run between 0 and 1 or null."),
        ("checkpoint.keep_last=0", "checkpoint.keep_last=0: it takes a whole number at least 1."),
        ("checkpoint.resume=lates", "Did you mean 'latest'?"),
        ("checkpoint.resume=-5", "it takes a text or a whole number at least 0."),
        ("checkpoint.load.model=maybe", "it takes true or false."),
    ],
    "distributed": [
        ("distributed.strategy=dpp", "it takes one of auto, single, ddp. Did you mean 'ddp'?"),
        ("distributed.data_parallel_size=0", "it takes a whole number at least 1 or null."),
    ],
    "profile": [
        ("profile=toch", "Did you mean 'torch'?"),
        ("profile.start=10", "profile.end=null does not come after profile.start=10; set both"),
        ("profile.ranks=0", "it takes a list, each a whole number at least 0. Did you mean [0]?"),
    ],
    "cluster": [
        ("cluster=slrum", "Did you mean 'slurm'?"),
        (
            "cluster.timeout_min=1:30:00",
            "timeout_min='1:30:00': it takes a whole number at least 1.",
        ),
        ("cluster.deadline=tomorrow", "a date and time such as 2026-01-31T12:00"),
        ("cluster.env.A=1", "cluster.env is empty; +cluster.env.A=... adds a key to it"),
        ("+cluster.env.HF_TOKEN=x", "cluster.env.HF_TOKEN: secrets do not belong in a config"),
    ],
    "paths": [
        ("paths.outputdir=x", "Did you mean 'output_dir'?"),
        ("paths.output_dir=''", "paths.output_dir='': it takes one line of text, not empty"),
        ("paths.data_root=${oc.env:NOT_SET}", "Environment variable 'NOT_SET' not found"),
        ("paths.run_name=${args.x}", "paths.run_name='${args.x}': Interpolation key 'args.x' not"),
    ],
    "experiment": [
        ("+experiment=debgu", "hydra_conf/experiment/debgu.yaml. Did you mean 'debug'?"),
        ("experiment.steps=3", "experiment.steps=3: there is no such key"),
    ],
    "args and the rest": [
        ("args.x=3", "args is empty; +args.x=... adds a key to it"),
        (f"{PARAMS}.lr=${{args.y}}", f"{PARAMS}.lr='${{args.y}}': Interpolation key 'args.y' not"),
        (f"{PARAMS}.lr=${{eval:'1/0'}}", "eval: '1/0' is not arithmetic: division by zero"),
        (f"{PARAMS}.lr=${{nope:1}}", "Unsupported interpolation type nope"),
        ("+foo=3", "foo=3: there is no such key. The config takes: model,"),
        ("+force=perhaps", "force='perhaps': it takes true or false."),
        ("hydra.nope=3", "hydra.nope=3: there is no such key. hydra takes: run, sweep,"),
        ("lr 0.1", "'lr 0.1' cannot be read"),
        (
            f"{PARAMS}.lr",
            f"'{PARAMS}.lr' cannot be read: missing EQUAL at '<EOF>'; write key=value.",
        ),
        ("=3", "'=3' cannot be read: it has no key"),
        ("paths.run_name='a", "cannot be read"),
    ],
}


@pytest.mark.parametrize(
    ("override", "message"), [case for node in WRONG.values() for case in node], ids=str
)
def test_a_wrong_input_is_answered_by_its_one_problem(override, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        compose([override])
    report = str(caught.value)
    assert report.startswith("1 problem in the configuration; nothing was started.\n  - "), report
    assert message in report
    assert not list(tmp_path.iterdir())


CONTRADICTIONS = [
    (
        ["distributed.data_parallel_size=2", f"{TRAINING}.global_batch_size=7"],
        "Batch size must be divisible by data parallel size"
        " (global_batch_size=7, data_parallel_size=2)",
    ),
    (
        ["distributed.strategy=single", "distributed.data_parallel_size=2"],
        "data_parallel_size=2 contradicts distributed.strategy='single'",
    ),
    (
        ["checkpoint.keep_top_k=2", f"{LOGGING}.eval_interval=null"],
        "checkpoint.keep_top_k=2 ranks by val_loss, but logging.logging_params.eval_interval is",
    ),
    (["profile=torch", "profile.end=5"], "profile.end=5 does not come after profile.start=10"),
    (["optimizer=muon", f"{PARAMS}.aux.lr=abc"], f"{PARAMS}.aux.lr='abc': it takes a number above"),
    (["optimizer=muon", f"{PARAMS}.momentun=0.9"], "Did you mean 'momentum'?"),
    (["optimizer=muon", f"~{PARAMS}.aux"], f"~{PARAMS}.aux: a run needs all of its keys"),
    (["data=grammar", "data.val_split=3000000"], "would hold out all of the data.tokens=2097152"),
    (["+logging=wandb", "logging.trackers.wandb.mode=ofline"], "Did you mean 'offline'?"),
    (["+logging=wandb", "logging.trackers.wandb.projct=x"], "Did you mean 'project'?"),
    (
        ["training=fineweb1B", "model=gpt2", "data=stdlib", "data.train=x"],
        "data takes: max_tokens, splits, eval, test, shuffle",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), CONTRADICTIONS)
def test_settings_that_do_not_fit_each_other_are_one_problem(overrides, message):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


def test_all_problems_stand_in_one_report_with_the_place_they_come_from():
    with pytest.raises(ConfigError) as caught:
        compose(
            [
                "modle=gpt2",
                "optimizer=moun",
                "lr 3",
                "lr_scheduler.min_lr_ratio=7",
                "lr_scheduler.decay_shape=exponential",
                "paths.data_root=${oc.env:NOT_SET}",
                f"{TRAINING}.context_length=999",
                f"{PARAMS}.momentum=0.9",  # of the optimizer that was meant: nothing to say
                "data=text",
            ],
            origin="params/lr_sweep.json, run 3",
        )
    report = str(caught.value).splitlines()
    assert report[0] == "7 problems in the configuration; nothing was started."
    places = [line[4:].split(": ")[:2] for line in report[1:]]
    origin = "params/lr_sweep.json, run 3"
    assert places == [
        [origin, "'lr 3' cannot be read"],
        [origin, "optimizer=moun"],
        [origin, "modle='gpt2'"],
        ["hydra_conf/data/text.yaml", "data.path has no value yet; give it one"],
        [origin, "paths.data_root='${oc.env:NOT_SET}'"],
        [origin, "lr_scheduler.min_lr_ratio=7"],
        [origin, f"{TRAINING}.context_length=999 is longer than model.config.block_size=128; at"
         " most 128 fits."],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "override"),
    [
        ("model=nope", f"{TRAINING}.context_length=1024"),
        ("model=nope", "model.config.n_experts=4"),
        ("optimizer=nope", f"{PARAMS}.momentum=0.9"),
        ("data=nope", "data.path=notes.txt"),
        ("data=nope", "model.config.vocab_size=99"),
        ("training=nope", f"{TRAINING}.max_steps=null"),
    ],
)
def test_what_may_suit_the_option_that_was_meant_is_not_reported(choice, override):
    with pytest.raises(ConfigError) as caught:
        compose([choice, override])
    assert [problem.key for problem in caught.value.problems] == [choice.split("=")[0]]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=glob(zzz*)", "model=glob(zzz*): it fits none of: gpt-large,"),
        (f"{PARAMS}.lr=interval(0.1,1)", "give values or a range"),
        ("optimizer=adamw,,muon", "cannot be read"),
    ],
)
def test_a_sweep_that_cannot_be_listed_is_one_problem(override, message):
    with pytest.raises(ConfigError) as caught:
        points([override])
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_one_cause_is_told_once_though_the_name_of_the_run_fails_for_it_too():
    with pytest.raises(ConfigError) as caught:
        compose([f"{TRAINING}.seed=${{oc.env:NOT_SET}}"])
    assert [problem.key for problem in caught.value.problems] == [f"{TRAINING}.seed"]


@pytest.mark.parametrize(
    "override",
    [
        "+logging.trackers.wandb.api_key=hunter2",
        "+args.wandb_api_key=hunter2",
        "+args.x={deep:{password:hunter2}}",
        "+args.key=${oc.env:WANDB_API_KEY}",
    ],
)
def test_a_secret_is_refused_and_never_repeated(override, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    with pytest.raises(ConfigError, match="secrets do not belong in a config") as caught:
        compose(["+logging=wandb", override])
    assert len(caught.value.problems) == 1
    assert "hunter2" not in str(caught.value)


def test_a_sweep_tells_each_problem_once_and_the_run_only_where_it_matters():
    overrides = ["optimizer=adamw,sgd", f"{PARAMS}.lr=0.1,a", f"{TRAINING}.sed=1"]
    with pytest.raises(ConfigError) as caught:
        compose_all(points(overrides))
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == [
        "  - command line",
        "  - command line, run 1",
    ]


def shards(folder, top):
    """Two raw files of 16-bit ids below ``top``."""
    random = np.random.default_rng(0)
    for name in ("train_0.bin", "val_0.bin"):
        random.integers(0, top, size=5000).astype("<u2").tofile(folder / name)


SHARDS = ["data=bin", "data.train=train_*.bin", "data.val=val_*.bin", "data.dtype=uint16"]
RAW = [*SHARDS, f"{LOGGING}.eval_tokens=null"]
AT_START = {
    "a corpus that was never prepared": (
        ["data=fineweb1B", "model=gpt-small"],
        65,
        "gptopt data prepare",
    ),
    "a file that is not there": (["data=text", "data.path=nope.txt"], 65, "data.path=nope.txt"),
    "a directory that cannot be read": (["data=text", "data.path=secret"], 65, "secret"),
    "tokens beyond the vocabulary": (
        [*RAW, "data.vocab_size=500", "model.config.vocab_size=500"],
        65,
        "model.config.vocab_size=500 takes ids below 500",
    ),
    "a corpus smaller than a batch": (
        [*RAW, "model=gpt2", f"{TRAINING}.context_length=1024"],
        65,
        "5,000 training tokens make 4 windows",
    ),
    "more devices than there are": (
        ["distributed.data_parallel_size=2"],
        2,
        "Total devices (2) must match available GPUs (1)",
    ),
    "a checkpoint that is not there": (
        ["checkpoint.init_from=nope"],
        2,
        "checkpoint.init_from=nope: there is no manifest.json in it",
    ),
    "an output root that cannot be made": (
        ["paths.output_dir=/proc/outputs"],
        73,
        "cannot create the run directory /proc/outputs/",
    ),
}


@pytest.mark.parametrize("name", AT_START)
def test_what_only_the_start_can_see_ends_before_anything_is_created(name, tmp_path, monkeypatch):
    overrides, code, message = AT_START[name]
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    shards(data, 600)
    if name == "a directory that cannot be read":
        (data / "secret").symlink_to(data / "secret")  # a loop: unreadable, also for root
    monkeypatch.chdir(work)
    config = compose([f"paths.data_root={data}", *overrides])
    with pytest.raises((ValueError, OSError)) as caught:
        train(config)
    assert int(exit_code_of(caught.value)) == code
    assert message in str(caught.value)
    assert not list(work.iterdir())


def start(folder, *arguments):
    """run_hydra.py as a process in ``folder``."""
    environment = os.environ | {"HYDRA_FULL_ERROR": ""}
    command = [sys.executable, str(ENTRY), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (
            [f"{PARAMS}.lrr=1", f"{TRAINING}.dtype=bf16"],
            2,
            ["2 problems in the configuration", "Did you mean 'lr'?", "Did you mean 'bfloat16'?"],
        ),
        (
            ["-m", f"{PARAMS}.lr=0.1,abc"],
            2,
            [f"command line, run 1: {PARAMS}.lr='abc': it takes a number above 0."],
        ),
        (["-m", "model=gpt2,gpt3", "optimizer=moun"], 2, ["model=gpt3", "Did you mean 'muon'?"]),
        (["data=fineweb1B", "model=gpt-small"], 65, ["To prepare it: gptopt data prepare"]),
        (
            ["-m", "data=fineweb1B", "model=gpt-small,gpt-medium"],
            65,
            ["To prepare it: gptopt data prepare"],
        ),
        (["--config-dir=/tmp"], 2, ["give a whole tree with --config-path"]),
        (["-m", "--cfg", "job"], 2, ["Only one of --run, --multirun, --cfg"]),
    ],
)
def test_a_process_answers_with_its_exit_code_and_leaves_nothing(
    arguments, code, messages, tmp_path
):
    answer = start(tmp_path, *arguments)
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr
    for message in messages:
        assert answer.stderr.count(message) == 1, answer.stderr
    assert not list(tmp_path.iterdir())
