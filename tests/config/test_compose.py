"""From overrides to one configuration: forms, precedence, identity, agreement with Hydra."""

import dataclasses
import random
import shlex
import subprocess
import sys

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

import gptopt
from gptopt.config import resolve, schema
from gptopt.config.checks import choices_of, schedule_keys
from gptopt.config.compose import compose, compose_all
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError
from gptopt.config.typed import points
from gptopt.layout import ENTRY, HYDRA_CONF

TRAINING = "training.training_params"
PARAMS = "optimizer.optimizer_params"


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "optimizer.optimizer_params.lr=0.0005 training.training_params.max_steps=1000",
        "model=gpt-small training=slim_pajama10B",
        "model=gpt-medium optimizer=dap-ns-nadam",
        "+logging=wandb",
        "+experiment=debug",
        "data=text data.path=notes.txt",
        "+force",
        "hydra/launcher=slurm cluster=slurm",
    ],
)
def test_the_forms_that_people_type_compose(command):
    compose(shlex.split(command))


def test_a_sweep_on_the_command_line_is_the_product_of_its_choices():
    command = (
        "optimizer.optimizer_params.lr=0.0003,0.001,0.003 training.training_params.batch_size=16,32"
    )
    configs = compose_all(points(shlex.split(command)))
    found = [(c.optimizer.optimizer_params["lr"], c.training.training_params.batch_size)
             for c in configs]  # fmt: skip
    assert found == [(3e-4, 16), (3e-4, 32), (1e-3, 16), (1e-3, 32), (3e-3, 16), (3e-3, 32)]


@pytest.mark.parametrize(
    ("override", "last", "count"),
    [
        ("model=glob(gpt2*)", "model=gpt2-xl", 4),
        (f"{TRAINING}.seed=range(3)", f"{TRAINING}.seed=2", 3),
        (f"{PARAMS}.betas=[0.9,0.95],[0.8,0.9]", f"{PARAMS}.betas=[0.8,0.9]", 2),
        ("paths.sweep='a,b','c d'", "paths.sweep='c d'", 2),
    ],
)
def test_a_choice_may_be_written_in_all_of_hydras_forms(override, last, count):
    runs = points([override])
    assert len(runs) == count
    assert runs[-1] == [last]
    compose_all(runs)


# --- what wins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["slim_pajama10B", "fineweb1B"])
def test_a_training_preset_brings_its_corpus(preset):
    assert compose(["model=gpt-small", f"training={preset}"]).data["name"] == preset


@pytest.mark.parametrize(
    "overrides", [["training=fineweb1B", "data=grammar"], ["data=grammar", "training=fineweb1B"]]
)
def test_a_corpus_that_is_asked_for_wins_over_the_preset_in_any_order(overrides):
    config = compose(["model=gpt-small", *overrides])
    assert config.data["name"] == "grammar"
    assert config.training.training_params.num_epochs == 1


def test_an_experiment_changes_any_node_and_the_command_line_wins_over_it():
    config = compose(["logging.logging_params.eval_interval=5", "+experiment=debug"])
    assert config.training.training_params.max_steps == 20
    assert config.checkpoint.save_minutes is None
    assert config.logging.logging_params.log_interval == 1
    assert config.logging.logging_params.eval_interval == 5


def test_an_experiment_may_be_written_with_and_without_a_plus():
    assert compose(["+experiment=debug"]).run_id == compose(["experiment=debug"]).run_id


def test_a_tracker_is_added_beside_the_settings_of_logging():
    config = compose(["+logging=wandb", "logging.trackers.wandb.tags=[a,b]"])
    assert config.logging.trackers["wandb"]["tags"] == ["a", "b"]
    assert config.logging.logging_params.log_interval == 10


def test_force_belongs_to_one_start_and_is_not_saved():
    config = compose(["+force"])
    assert config.force
    assert config.run_id == compose([]).run_id
    assert config.source.overrides == []


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([f"{PARAMS}.lr=2e-3"], [f"{PARAMS}.lr=0.002"]),
        ([], [f"{PARAMS}.lr=0.001", f"{TRAINING}.seed=0", "model=gpt-tiny", "optimizer=adamw"]),
        ([f"{PARAMS}.weight_decay=0"], [f"{PARAMS}.weight_decay=0.0"]),
        ([f"{PARAMS}.lr=1", f"{TRAINING}.seed=1"], [f"{TRAINING}.seed=1", f"{PARAMS}.lr=1.0"]),
        ([f"{TRAINING}.max_grad_norm=2"], [f"{TRAINING}.max_grad_norm=2.0"]),
        (["+args.x=0.5", f"{PARAMS}.lr=${{args.x}}"], [f"{PARAMS}.lr=0.5"]),
        ([], ["+logging=wandb", "logging.logging_params.eval_interval=7"]),
        ([], ["cluster=slurm", "profile=torch", "paths.data_root=/data", "+args.note=x"]),
        ([], ["checkpoint.save_interval=0.1", "checkpoint.keep_last=5", "checkpoint.resume=best"]),
    ],
)
def test_configurations_that_train_the_same_run_share_its_directory(one, other):
    a, b = compose(one), compose(other)
    assert a.run_id == b.run_id
    assert run_directory(a) == run_directory(b)


DIFFERENT = [
    [],
    [f"{TRAINING}.seed=1"],
    [f"{TRAINING}.data_seed=1"],
    [f"{PARAMS}.lr=0.002"],
    [f"{PARAMS}.eps=1e-9"],
    [f"{TRAINING}.max_steps=301"],
    [f"{TRAINING}.loss.z_loss=1e-4"],
    ["model.config.n_layer=4"],
    ["data=grammar"],
    ["lr_scheduler=cosine"],
    ["distributed.strategy=single"],
    ["checkpoint.init_from=/weights"],
    ["checkpoint.init_from=/other"],
]


def test_configurations_that_train_another_run_have_another_directory():
    configs = [compose(overrides) for overrides in DIFFERENT]
    assert len({config.run_id for config in configs}) == len(DIFFERENT)
    assert len({run_directory(config) for config in configs}) == len(DIFFERENT)


def test_a_run_name_of_ones_own_still_ends_in_the_identity():
    config = compose(["paths.run_name='my run'"])
    assert config.paths.run_name == f"my_run-{config.run_id[:8]}"
    long = compose([f"paths.run_name={'x' * 300}"]).paths.run_name
    assert long.endswith(config.run_id[:8])
    assert len(long) <= 120


def test_the_default_name_shows_what_people_look_for():
    config = compose([f"{TRAINING}.global_batch_size=32", f"{PARAMS}.lr=3e-4"])
    assert config.paths.run_name == f"bs-32-lr-0.0003-wd-0.1-seed-0-{config.run_id[:8]}"


# --- every YAML file ------------------------------------------------------------------------------


OPTIONS = [
    (group.name, option)
    for group in sorted(HYDRA_CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
    for option in choices_of(group.name)
]
BASED = {"training/fineweb1B", "training/slim_pajama10B", "training/shakespeare"}
"""Presets that change some keys of another one."""


def flat(node, path=""):
    """Dotted keys of the leaves."""
    if not isinstance(node, dict) or not node:
        return {path}
    return {leaf for key, value in node.items() for leaf in flat(value, f"{path}.{key}".strip("."))}


def fields(kind):
    """Dotted keys of a dataclass and the dataclasses in it."""
    names = set()
    for field in dataclasses.fields(kind):
        inner = getattr(schema, str(field.type), None)
        deeper = fields(inner) if dataclasses.is_dataclass(inner) else {""}
        names |= {f"{field.name}.{name}".strip(".") for name in deeper}
    return names


def expected_keys(group, content):
    """The keys that the code takes of what an option file says."""
    if group == "model":
        keys = resolve.keys_of(resolve.find_part("models", content["family"]))
        return {"name", "family", *(f"config.{key}" for key in keys)}
    if group == "data":
        keys = resolve.keys_of(resolve.find_part("data.formats", content["format"]))
        inner = {key for key in flat(content) if key.startswith("sources.")}  # of a mixture
        return {"name", "format", *keys, *inner} - {"data_root", "sources"}
    if group == "lr_scheduler":
        return set(schedule_keys(content["name"]))
    if group == "logging":
        (name,) = content["trackers"]
        keys = resolve.keys_of(resolve.find_part("tracking", name))
        return {f"trackers.{name}.{key}" for key in keys}
    if group == "optimizer":
        params = content["optimizer_params"]
        shared = {"name", "lr", "weight_decay", "no_decay"}
        aux = {f"aux.{key}" for key in ("lr", "betas", "eps", "weight_decay")}
        keys = {*resolve.keys_of(resolve.find_part("optim", params["name"])), *shared}
        if "settings" in keys:  # of a library's class: tests/optim/test_bridge.py
            keys = keys - {"settings"} | {f"settings.{key}" for key in params["settings"]}
        return {f"optimizer_params.{key}" for key in keys | (aux if "aux" in params else set())}
    if group == "clipping":
        return {"max_grad_norm"}
    beside = {"training_params.max_grad_norm"}  # of the group clipping
    return fields(getattr(schema, group.capitalize())) - beside


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_yaml_file_lists_exactly_the_keys_that_the_code_takes(group, option):
    content = yaml.safe_load((HYDRA_CONF / group / f"{option}.yaml").read_text())
    content.pop("defaults", None)
    if group == "experiment":
        composed = compose([f"experiment={option}"]).source.composed
        assert flat(content) <= flat(yaml.safe_load(composed))
    elif f"{group}/{option}" in BASED:
        assert flat(content) <= expected_keys(group, content) | {""}
    else:
        assert flat(content) == expected_keys(group, content)


def test_the_inline_nodes_of_the_config_list_exactly_the_keys_that_the_code_takes():
    content = yaml.safe_load((HYDRA_CONF / "config.yaml").read_text())
    assert flat(content["logging"]) == fields(schema.Logging)
    assert content["args"] == {}
    common = fields(schema.DataCommon) - {"name", "format"}
    assert flat(content["data"]) == common


# --- agreement ------------------------------------------------------------------------------------


def resolved(config):
    """A config as plain values."""
    plain = dataclasses.asdict(config)
    return {key: value for key, value in plain.items() if key not in ("force", "run_id", "source")}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer=muon", f"{PARAMS}.lr=3e-2", f"{PARAMS}.weight_decay=0", "+logging=wandb"],
        ["training=fineweb1B", "model=gpt-small", "+args.a={b:[1,x]}", "+experiment=debug"],
    ],
)
def test_the_python_interface_gives_what_the_command_line_shows(overrides):
    command = [sys.executable, str(ENTRY), *overrides, "--cfg", "job", "--resolve"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resolved(gptopt.compose(overrides)) == yaml.safe_load(answer.stdout)


VALUES = {
    f"{TRAINING}.seed": ["1", "7"],
    f"{TRAINING}.max_grad_norm": ["0.5", "1", "null"],
    f"{TRAINING}.dtype": ["bfloat16", "'float16'", '"float32"'],
    f"{TRAINING}.loss.z_loss": ["1e-4", "0.0001", "0"],
    f"{TRAINING}.loss": ["{z_loss:0.5}", "{softcap:30,z_loss:1.5e-3}"],
    f"{TRAINING}.deterministic": ["true", "True", "FALSE"],
    f"{TRAINING}.num_epochs": ["2", "0.5", "null"],
    f"{PARAMS}.lr": ["1e-3", "3", ".5", "${args.free}", "${eval:'2 * 0.25'}", "${div:1,4}"],
    f"{PARAMS}.weight_decay": ["0", "0.0", "${.lr}"],
    f"{PARAMS}.no_decay": ["[]", "[vector,embedding]", "['head']"],
    "checkpoint.load": ["{data:false}", "{model:false,data:true}"],
    "checkpoint.resume": ["best", "5", "'a/b c'", "${paths.output_dir}/x"],
    "checkpoint.save_interval": ["10", "0.25"],
    "logging.logging_params.eval_interval": ["null", "5"],
    "cluster.setup": ["['module load a','x=\"1\"']", "[]", "[a b]"],
    "cluster.deadline": ["1e9", "'2026-01-31T12:00'"],
    "paths.sweep": ["null", "s", "'it\\'s'", '"two words"', "'a=b'", "${model.name}-x"],
    "paths.run_name": ["x", "'a, b'", "${optimizer.optimizer_params.name}-${run_hash:}"],
    "+args.x": ["1", "{a:1,b:[2,{c:null}]}", "'1'", "a b", "${args.free}"],
    "++args.y": ["true", "[1,2.5,x]"],
    "+args.free": ["0.25"],
    "+cluster.env.A": ["1", "'1'"],
}
CHOICES = {
    "model": ["gpt-tiny", "gpt2", "llama2"],
    "optimizer": ["adamw", "muon", "schedule-free-adamw", "momo"],
    "lr_scheduler": ["cosine", "wsd", "constant"],
    "clipping": ["norm", "none"],
    "data": ["stdlib", "grammar", "shakespeare"],
    "training": ["tiny", "shakespeare"],
    "cluster": ["slurm", "local"],
    "profile": ["torch"],
    "experiment": ["debug"],
    "+logging": ["wandb", "[wandb]"],
}


def random_overrides(dice):
    """Some groups, some values, in random order; ``${args.free}`` always finds its key."""
    groups = dice.sample(sorted(CHOICES), dice.randint(0, 3))
    keys = dice.sample(sorted(VALUES), dice.randint(1, 7))
    chosen = [f"{group}={dice.choice(CHOICES[group])}" for group in groups]
    chosen += [f"{key}={dice.choice(VALUES[key])}" for key in keys if key != "+args.free"]
    dice.shuffle(chosen)
    return [*chosen, "+args.free=0.25", *dice.choice([[], ["~args.free", "+args.free=1"]])]


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_setting_values_on_a_composed_tree_equals_composing_them_with_hydra(count):
    dice = random.Random(0)
    with hydra.initialize_config_dir(str(HYDRA_CONF), version_base=None):
        for _ in range(count):
            overrides = random_overrides(dice)
            ours = compose(overrides)
            theirs = hydra.compose("config", overrides=overrides)
            tree = OmegaConf.create(ours.source.composed)
            assert OmegaConf.to_container(tree) == OmegaConf.to_container(theirs), overrides
            values, plain = OmegaConf.to_container(theirs, resolve=True), resolved(ours)
            for node in (values, plain):
                del node["paths"]["run_name"]  # ours is safe for a directory
            assert plain == values, overrides


def test_one_text_in_the_place_of_a_list_is_told():
    with pytest.raises(ConfigError, match=r"it takes a list of them: \['optimizer=muon'\]"):
        compose("optimizer=muon")
