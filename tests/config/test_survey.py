"""All points of a sweep at once equal each of them composed alone, by Hydra and by us."""

import random
from collections.abc import Mapping

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptopt.config import identity
from gptopt.config.compose import compose
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError
from gptopt.config.survey import survey
from gptopt.layout import HYDRA_CONF

TRAINING = "training.training_params"
PARAMS = "optimizer.optimizer_params"

GROUPS = {
    "model": ["gpt-tiny", "'gpt2'", "llama2"],
    "optimizer": ["adamw", "muon", "'dap-ns-nadam'", "schedule-free-adamw", "momo"],
    "lr_scheduler": ["cosine", "wsd", "constant"],
    "clipping": ["norm", "none"],
    "training": ["tiny", "shakespeare", "one_epoch"],
    "data": ["stdlib", "grammar"],
    "experiment": ["debug"],
    "+logging": ["wandb"],
}
VALUES = {
    f"{PARAMS}.lr": ["1e-3", "3", "0.5", "0.01", "${args.free}", "'${div:1,${args.free}}'"],
    f"{PARAMS}.weight_decay": ["0", "0.0", "0.1", "${.lr}", "${args.free}"],
    f"{PARAMS}.no_decay": ["[]", "[vector,embedding]", "['head']"],
    f"{TRAINING}.seed": ["1", "7", "123456789", "${.batch_size}"],
    f"{TRAINING}.batch_size": ["1", "2", "4"],
    f"{TRAINING}.global_batch_size": ["8", "16", "null", "${eval:'2 * 4'}"],
    f"{TRAINING}.context_length": ["64", "128"],
    f"{TRAINING}.max_grad_norm": ["0.5", "1", "null"],
    f"{TRAINING}.dtype": ["bfloat16", "'float16'", '"float32"'],
    f"{TRAINING}.deterministic": ["true", "FALSE"],
    f"{TRAINING}.loss": ["{z_loss:0.5}", "{softcap:30}"],
    f"{TRAINING}.loss.z_loss": ["1e-4", "0.0001", "0"],
    "checkpoint.load": ["{data:false}"],
    "checkpoint.save_interval": ["10", "0.25", "null"],
    "checkpoint.init_from": ["'a/b'", "null", "${paths.output_dir}/x"],
    "logging.logging_params.eval_tokens": ["4096", "8192"],
    "paths.sweep": ["s", "'it\\'s'", "${model.name}-x", "${paths.run_name}"],
    "paths.run_name": [
        "x",
        "'a, b'",
        "'lr-${num:${optimizer.optimizer_params.lr}}'",
        "'a-${run_hash:}'",
    ],
    "paths.output_dir": ["here", "'${args.where}/${model.name}'"],
    "cluster.setup": ["['module load a']", "[]"],
    "+args.x": ["1", "'1'", "[1,x]", "{a:1,b:[2,{c:null}]}"],
    "++args.y": ["true", "[1,2.5,x]"],
}
WRONG = {
    f"{PARAMS}.lr": ["abc", "-1", "[1,2]", "null", "1,2", "${no.such}", "${div:1,0}"],
    f"{PARAMS}.lrr": ["1", "2"],
    f"{PARAMS}.name": ["muon", "nothing"],
    f"{TRAINING}.seed": ["0.5", "-1", "true"],
    f"{TRAINING}.batch_size": ["0", "3", "5"],
    f"{TRAINING}.global_batch_size": ["7"],
    f"{TRAINING}.context_length": ["100000", "'64'"],
    f"{TRAINING}.loss": ["1", "{z:1}"],
    f"+{TRAINING}.seed": ["1"],
    f"~{TRAINING}.seed": ["1"],
    f"+{TRAINING}.more": ["1", "2"],
    "model.config.n_head": ["5", "7"],
    "paths.run_name": ["''", "' '", "'x\ny'"],
    "+args.api_key": ["a"],
    "optimizer": ["moun"],
    "+optimizer": ["muon"],
    "betas": ["1"],
}


def sweep(dice, values, count):
    """Points that set the same few keys, as those of a sweep file do, in one order."""
    groups = dice.sample(sorted(GROUPS), dice.randint(0, 2))
    keys = dice.sample(sorted(values), dice.randint(1, 6))
    dice.shuffle(keys)
    fixed = [f"{group}={dice.choice(GROUPS[group])}" for group in groups]
    always = ["+args.free=0.25", "+args.where=there"]
    return [
        [*fixed, *always, *(f"{key}={dice.choice(values[key])}" for key in keys)]
        for _ in range(count)
    ]


def everything(raw):
    """A measure that reads all of a configuration."""
    return {k: everything(v) if isinstance(v, Mapping) else v for k, v in raw.items()}


@pytest.mark.parametrize("sweeps", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_every_point_has_the_values_that_hydra_composes_for_it(sweeps):
    dice = random.Random(0)
    points = [point for _ in range(sweeps) for point in sweep(dice, VALUES, 10)]
    seen = survey(points, origin="here", measures=(everything,))
    compared = 0
    with hydra.initialize_config_dir(str(HYDRA_CONF), version_base=None):
        for index, (point, sketch) in enumerate(zip(points, seen.sketches, strict=True)):
            tree = hydra.compose("config", overrides=point)
            theirs = OmegaConf.to_container(tree, resolve=True)
            if sketch is None:  # composed well, but not fit to be run
                assert any(index in of for of in seen.problems.values())
                continue
            assert sketch.measured == (theirs,), point
            assert sketch.run_id == identity.run_id(theirs), point
            compared += 1
    assert compared > 6 * sweeps


def alone(point):
    """The configuration of a point, or none and why not."""
    try:
        return compose(point, origin="here"), set()
    except ConfigError as error:
        return None, set(map(words, error.problems))


def words(problem):
    """What is said of a point; of a key that there is not, the value of any point may be shown."""
    return problem.key if "no such key" in problem.message else str(problem)


@pytest.mark.parametrize("sweeps", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_every_point_is_refused_for_the_same_reasons_as_alone(sweeps):
    dice = random.Random(1)
    values = {key: VALUES.get(key, [])[:2] + WRONG.get(key, []) for key in {**VALUES, **WRONG}}
    refused = 0
    for _ in range(sweeps):
        points = sweep(dice, values, 10)
        seen = survey(points, origin="here")
        for index, (point, sketch) in enumerate(zip(points, seen.sketches, strict=True)):
            config, reasons = alone(point)
            ours = {words(problem) for problem, of in seen.problems.items() if index in of}
            assert ours == reasons, point
            assert (sketch is None) == (config is None), point
            if sketch is not None:
                assert sketch.run_id == config.run_id, point
                assert sketch.run == run_directory(config), point
            refused += sketch is None
    assert 2 * sweeps < refused < 10 * sweeps


REFUSED = [
    [f"{PARAMS}.lrr=1"],
    [f"+{TRAINING}.seed=1"],
    ["+optimizer=muon"],
    ["optimizer=moun"],
    [f"{PARAMS}.lr=1,2"],
    ["betas=1"],
    [f"{PARAMS}.lr=[1"],
    ["paths.sweep=${no.such}"],
]


@pytest.mark.parametrize("point", REFUSED, ids=lambda point: point[0])
def test_what_hydra_refuses_is_refused(point):
    with (
        hydra.initialize_config_dir(str(HYDRA_CONF), version_base=None),
        pytest.raises((HydraException, OmegaConfBaseException)),
    ):
        OmegaConf.to_container(hydra.compose("config", overrides=point), resolve=True)
    assert survey([point, point], origin="here").sketches == [None, None]


def test_of_two_wrong_overrides_of_one_key_both_are_told():
    point = [f"+{TRAINING}.seed=1", f"~{TRAINING}.seed"]
    seen = survey([point], origin="here")
    assert len(seen.problems) == 2
    assert {words(problem) for problem in seen.problems} == alone(point)[1]


def test_a_value_that_follows_from_another_is_worked_out_again():
    points = [["optimizer=dap-ns-nadam", f"{PARAMS}.lr={lr}"] for lr in (0.1, 0.2, 0.1)]
    seen = survey(points, origin="here", measures=(everything,))
    params = [sketch.measured[0]["optimizer"]["optimizer_params"] for sketch in seen.sketches]
    assert [values["aux"]["lr"] for values in params] == [0.1, 0.2, 0.1]


def test_1_and_true_are_different_values():
    points = [[f"{TRAINING}.deterministic={text}"] for text in ("true", "1", "1.0", "false")]
    seen = survey(points, origin="here")
    assert [sketch is None for sketch in seen.sketches] == [False, True, True, False]


def test_a_measure_is_asked_once_for_the_same_of_what_it_reads():
    asked = []

    def lr(raw):
        asked.append(raw["optimizer"]["optimizer_params"]["lr"])
        return asked[-1]

    points = [[f"{PARAMS}.lr={lr}", f"{TRAINING}.seed={seed}"] for lr in (1, 2) for seed in (0, 1)]
    seen = survey(points, origin="here", measures=(lr,))
    assert [sketch.measured for sketch in seen.sketches] == [(1,), (1,), (2,), (2,)]
    assert asked == [1, 2]


def test_a_rule_between_two_keys_is_held_against_every_pair_of_them():
    points = [
        [f"{TRAINING}.batch_size={batch}", f"{TRAINING}.global_batch_size={total}"]
        for batch in (2, 3)
        for total in (4, 6, 9)
    ]
    seen = survey(points, origin="here")
    fits = [sketch is not None for sketch in seen.sketches]
    assert fits == [True, True, False, False, True, True]


def test_what_is_wrong_with_many_points_is_not_composed_for_each():
    points = [["paths.sweep='${no.such}'", f"{TRAINING}.seed={seed}"] for seed in range(300)]
    seen = survey(points, origin="here")
    assert set(seen.sketches) == {None}
    assert seen.not_looked_at == 250
    assert "no.such" in next(iter(seen.problems)).message
