"""From points to checked runs: identity, directory, state, and one report of all problems."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gptopt import layout
from gptopt.config import identity
from gptopt.config.compose import compose, compose_all
from gptopt.config.identity import run_directory
from gptopt.config.problems import ConfigError
from gptopt.config.typed import points
from gptopt.state import State
from gptopt.sweep import params
from gptopt.sweep.listing import lines
from gptopt.sweep.plan import plan, summary

PARAMS = sorted((layout.PROJECT / "params").glob("*.json"))
SEED = "training.training_params.seed"


@pytest.mark.parametrize("file", PARAMS, ids=lambda file: file.name)
def test_every_parameter_file_of_the_project_can_be_planned(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = plan(file, [], max_runs=1000)
    assert len(planned.runs) == params.read(file).size
    assert planned.notes == []
    assert list(tmp_path.iterdir()) == []


RATE = "optimizer.optimizer_params.rcond"
EXAMPLES = {
    "a grid": ({"lr": [0.0003, 0.001, 0.003], "wd": [0, 0.1]}, 6),
    "a generator and a list as a value": (
        {
            "optimizer": "adamw",
            "lr": {"log": [1e-4, 1e-2, 5]},
            "betas": [[0.9, 0.95], [0.95, 0.95]],
            "seed": [0, 1, 2],
        },
        30,
    ),
    "pairs": ({"$zip": {"bs": [32, 64, 128], "lr": [0.001, 0.0014, 0.002]}, "seed": [0, 1]}, 6),
    "a block for each optimizer": (
        {
            "seed": [0, 1, 2],
            "$each": [
                {"optimizer": "adamw", "lr": {"log": [5e-4, 8e-3, 5]}, "wd": [0, 0.1]},
                {
                    "optimizer": ["muon", "muonmax-momo"],
                    "lr": {"log": [3e-3, 0.1, 4]},
                    "muon_lr_ratio": [1, 10],
                },
                {"optimizer": "dap-ns-nadam", "lr": [0.0003, 0.001], RATE: [0.001, 0.01]},
            ],
        },
        3 * (10 + 16 + 4),
    ),
    "draws": (
        {
            "optimizer": "adamw",
            "$sample": {"n": 20, "method": "halton"},
            "lr": {"loguniform": [1e-4, 1e-2]},
            "wd": {"loguniform": [0.005, 1]},
        },
        20,
    ),
    "a star": (
        {
            "optimizer": "adamw",
            "$center": {"lr": 0.008, "wd": 0.1, "optimizer.optimizer_params.eps": 1e-8},
            "lr": [0.004, 0.008, 0.016],
            "wd": [0, 0.1, 0.2],
            "optimizer.optimizer_params.eps": [1e-8, 1e-10],
        },
        1 + 2 + 2 + 1,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_every_word_comes_to_as_many_runs_as_its_arithmetic(planned, name):
    content, size = EXAMPLES[name]
    assert len(planned(content).runs) == size


def test_every_alias_stands_for_a_key_that_some_optimizer_has():
    composed = [compose([f"optimizer={name}"]).source.composed for name in ("adamw", "muon")]

    def has(tree, path):
        first, _, rest = path.partition(".")
        return first in tree and (not rest or has(tree[first], rest))

    for alias, path in params.aliases().items():
        assert any(has(yaml.safe_load(text), path) for text in composed), alias


def test_a_sweep_file_and_m_mean_the_same_directories(planned):
    ours = planned({"optimizer": ["adamw", "muon"], "lr": [3e-4, 0.01], "steps": 7})
    hydra = ["optimizer=adamw,muon", "optimizer.optimizer_params.lr=3e-4,0.01"]
    theirs = compose_all(points([*hydra, "training.training_params.max_steps=7"]))
    assert [run.run for run in ours.runs] == [run_directory(config) for config in theirs]
    assert [run.run_id for run in ours.runs] == [config.run_id for config in theirs]


def test_planning_twice_gives_the_same_and_creates_nothing(planned, tmp_path):
    content = {"lr": [0.001, 0.002], "seed": [0, 1]}
    assert planned(content) == planned(content)
    assert [path.name for path in tmp_path.iterdir()] == ["a sweep.json"]


def test_points_that_mean_the_same_run_are_merged_with_a_note(planned):
    # 0.001 is AdamW's own learning rate, and 1e-3 another way to write it.
    same = planned({"$each": [{"lr": [0.001, 0.002, 1e-3]}, {"optimizer": "adamw"}]})
    assert [run.index for run in same.runs] == [0, 1]
    assert same.notes == ["runs 0, 2, 3 are the same run: it is done once."]


def test_what_does_not_change_the_run_does_not_make_another(planned):
    same = planned({"logging.logging_params.log_interval": [1, 2]})
    assert len(same.runs) == 1


def test_finished_runs_are_not_done_again_and_a_new_value_adds_only_its_own(planned):
    first = planned({"lr": [0.001, 0.002, 0.003]})
    for run, marker in zip(first.runs, ("completed", "diverged", "failed"), strict=True):
        run.run.mkdir(parents=True)
        (run.run / layout.TERMINAL[marker]).write_text("{}")
    again = planned({"lr": [0.001, 0.002, 0.003, 0.004]})
    assert [run.index for run in again.to_do] == [2, 3]
    words = "4 runs: 1 completed, 1 diverged, 2 to do (1 failed before)"
    assert again.summary() == words


def test_runs_with_a_job_in_the_queue_are_left_alone(planned):
    both = planned({"seed": [0, 1]})
    waiting = both.with_pending({both.runs[1].run})
    assert [run.index for run in waiting.to_do] == [0]
    assert waiting.summary() == "2 runs: 1 pending, 1 to do"


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["new"], "1 run: 1 to do"),
        (["completed"] * 2, "2 runs: 2 completed, nothing to do"),
        (
            ["completed"] * 12 + ["diverged"] + ["running"] * 2 + ["new"] * 5,
            "20 runs: 12 completed, 1 diverged, 2 running, 5 to do",
        ),
        (
            ["preempted", "interrupted", "failed", "new"],
            "4 runs: 4 to do (1 failed before, 1 interrupted before, 1 preempted before)",
        ),
    ],
)
def test_the_counts_are_told_in_a_line(planned, states, words):
    run = planned({"seed": 0}).runs[0]
    assert summary([replace(run, state=State(state)) for state in states]) == words


def test_a_listing_shows_only_what_differs(planned):
    both = planned({"optimizer": "muon", "seed": [3, 4]})
    assert [line.split() for line in lines(both.runs)] == [
        ["0", "new", "seed=3"],
        ["1", "new", "seed=4"],
    ]


def test_overrides_of_the_command_line_win_over_the_file(planned):
    both = planned({"optimizer": "sgd", "lr": [1, 2]}, "optimizer=muon", f"{SEED}=5")
    assert {run.run.parent.name for run in both.runs} == {"muon"}
    assert both.runs[0].overrides == [
        "optimizer.optimizer_params.lr=1",
        "optimizer=muon",
        f"{SEED}=5",
    ]


def test_a_short_name_on_the_command_line_is_told_with_its_path(planned):
    with pytest.raises(ConfigError, match=r"steps: short names are for parameter files; here it"):
        planned({"seed": 0}, "steps=20")


def test_a_job_is_told_absolute_paths_and_the_name_of_its_sweep(planned, tmp_path):
    (run,) = planned({"seed": 0}, r"paths.output_dir='~/it\'s here'").runs
    assert run.frozen == [
        "paths.sweep='a_sweep'",
        rf"paths.output_dir='{Path.home()}/it\'s here'",
        f"paths.data_root='{tmp_path}/data'",
    ]


def test_the_value_of_another_key_can_be_inserted(planned):
    values = {"+args.rate": [0.002, 0.003], "lr": "${args.rate}"}
    named = [run.run.name for run in planned(values).runs]
    assert ["lr-0.002" in named[0], "lr-0.003" in named[1]] == [True, True]


WRONG = {
    "a value of every kind": (
        {"lr": ["abc", -1], "seed": 0.5},
        [
            "a sweep.json /lr, run 0: optimizer.optimizer_params.lr='abc': it takes a number",
            "a sweep.json /lr, run 1: optimizer.optimizer_params.lr=-1: it takes a number above 0",
            "a sweep.json /seed: training.training_params.seed=0.5: it takes a whole number",
        ],
    ),
    "a list that was meant as one value": (
        {"betas": [0.9, 0.95]},
        ["A list is swept; for one list write [[0.9, 0.95]]."],
    ),
    "a key of the other optimizer": (
        {"optimizer": ["adamw", "muon"], "ns_steps": 3},
        ["run 0: optimizer.optimizer_params.ns_steps=3: there is no such key", "block of $each"],
    ),
    "an unknown option": ({"optimizer": ["adamw", "muom"]}, ["Did you mean 'muon'?"]),
    "a group that needs no plus": ({"+optimizer": "muon"}, ["write optimizer='muon' instead"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_told_with_its_run(planned, tmp_path, name):
    content, messages = WRONG[name]
    with pytest.raises(ConfigError) as error:
        planned(content)
    for message in messages:
        assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a sweep.json"]


def test_a_wrong_value_is_told_beside_a_wrong_key(planned):
    with pytest.raises(ConfigError) as error:
        planned({"lrr": [0.1, 0.2], "wd": [0, "abc"], "seed": 0.5}, "lr=1")
    first, *rest = str(error.value).splitlines()
    assert first.startswith("4 problems")
    for text in (
        "/lrr: there is no such key. Did you mean 'lr'?",
        "/wd, run 1: optimizer.optimizer_params.weight_decay='abc': it takes a number at least 0",
        "/seed: training.training_params.seed=0.5: it takes a whole number",
        "lr: short names are for parameter files",
    ):
        assert sum(text in line for line in rest) == 1, text


def test_what_may_come_from_a_key_that_could_not_be_read_is_not_told(planned):
    # ns_steps is Muon's: without its optimizer there is no such key
    with pytest.raises(ConfigError) as error:
        planned({"optimiser": "muon", "optimizer.optimizer_params.ns_steps": [3, 5]})
    assert [problem.key for problem in error.value.problems] == ["/optimiser"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("+force", "+force redoes a single run"),
        ("model", "'model' cannot be read"),
        ("training.training_params.seed=0,1", "a list of choices needs -m"),
        ("cluster=nowhere", "there is no hydra_conf/cluster/nowhere.yaml"),
    ],
)
def test_wrong_overrides_for_all_runs_are_told(planned, extra, message):
    with pytest.raises(ConfigError) as error:
        planned({"seed": [0, 1]}, extra)
    assert message in str(error.value)


def test_more_runs_than_expected_are_refused_before_they_are_composed(planned):
    many = list(range(10_000))
    with pytest.raises(ConfigError, match="100,000,000 runs; raise the limit of 100 with --max"):
        planned({"seed": many, "data_seed": many})


def test_two_runs_in_one_directory_are_refused(planned, monkeypatch):
    monkeypatch.setattr(identity, "DIGITS", 1)  # 17 runs, 16 names
    with pytest.raises(ConfigError, match=r"runs \d+ and \d+ would both write .*/same-"):
        planned({"paths.run_name": "same", "seed": list(range(17))})


# --- reports --------------------------------------------------------------------------------------


def report(planned, content, **limits):
    with pytest.raises(ConfigError) as error:
        planned(content, **limits)
    return [line.partition("a sweep.json")[2] for line in str(error.value).splitlines()[1:]]


def test_the_same_problem_of_many_points_is_one_line_with_its_place(planned):
    content = {"seed": list(range(50)), "$each": [{"lr": 0.001}, {"lr": [-1, 0.002]}]}
    assert report(planned, content, max_runs=1000) == [
        " /$each/0/lr /$each/1/lr, runs 50, 52, 54 (47 more):"
        " optimizer.optimizer_params.lr=-1: it takes a number above 0."
    ]


def test_thousands_of_wrong_values_make_a_short_report_that_names_every_key(planned):
    wrong = {"lr": [-1 - i for i in range(50)], "wd": [-1 - i for i in range(50)], "seed": "x"}
    lines = report(planned, wrong, max_runs=5000)
    assert len(lines) < 20
    for key in ("/lr", "/wd", "/seed"):
        assert any(key in line for line in lines)
    assert sum("in 2,250 runs with other values" in line for line in lines) == 2


def test_a_key_of_other_optimizers_is_told_with_their_names(planned):
    lines = report(planned, {"optimizer": ["adamw", "sgd"], "ns_steps": [3, 5]})
    assert len(lines) == 2  # adamw and sgd take different keys
    for line in lines:
        assert "/ns_steps, runs " in line
        assert "It is a key of optimizer=" in line
        assert "put it into their own block of $each" in line


def test_a_secret_is_refused_and_its_value_never_shown(planned, tmp_path):
    with pytest.raises(ConfigError) as error:
        planned({"+args.api_key": "hunter2", "seed": [0, 1]})
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError) as error:
        planned({"seed": 0}, "+cluster.env.GITHUB_TOKEN=hunter2")
    assert "hunter2" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a sweep.json"]


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_a_run_on_several_nodes_is_refused_where_a_run_is_one_process(planned, cluster):
    with pytest.raises(ConfigError, match=r"cluster.nodes=2: .* it takes 1"):
        planned({"seed": 0}, f"cluster={cluster}", "cluster.nodes=2")
    planned({"seed": 0}, "cluster=slurm-disbatch", "cluster.nodes=2")


# --- what is told of a plan -----------------------------------------------------------------------


def test_a_plan_is_json_that_other_programs_can_read(planned):
    both = planned({"lr": [0.001, 0.002], "steps": 10, "bs": 4})
    told = json.loads(json.dumps(both.to_json(), allow_nan=False))
    assert told["version"] == 1
    assert told["counts"] == {"new": 2}
    assert told["to_do"] == 2
    assert told["axes"] == [
        {
            "key": "optimizer.optimizer_params.lr",
            "count": 2,
            "values": [0.001, 0.002],
            "least": 0.001,
            "greatest": 0.002,
        }
    ]
    # gpt-tiny reads 128 tokens a sequence
    assert [run["tokens"] for run in told["runs"]] == [10 * 4 * 128] * 2
    assert told["price"]["tokens"] == 2 * 10 * 4 * 128
    assert told["price"]["seconds_unknown"] == 2


def test_people_are_told_what_varies(planned):
    lines = planned({"lr": {"log": [1e-4, 1e-2, 20]}, "optimizer": ["adamw", "muon"]}).lines()
    assert lines[:2] == [
        "optimizer.optimizer_params.lr: 20 values: 0.0001 to 0.01",
        "optimizer: 2 values: 'adamw', 'muon'",
    ]
