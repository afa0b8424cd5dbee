"""`gptopt optim`: each promise, broken on purpose, is found; what is said to a stranger."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from click.testing import CliRunner, Result
from optim_toy import from_yaml, write_docs_example

from gptopt.cli import main
from gptopt.config import catalogue
from gptopt.config.compose import compose
from gptopt.config.problems import ConfigError
from gptopt.layout import HYDRA_CONF
from gptopt.optim.checking import gym, verdicts
from gptopt.optim.checking.toy import PARAMETERS, ROLES, Toy
from gptopt.optim.checking.verdicts import checks, judge
from gptopt.optim.common import timing
from gptopt.optim.common.cost import cost
from gptopt.optim.common.inputs import InputMoments

RETURN = "        return momentum / norm.clamp(min=torch.finfo(norm.dtype).tiny)  # (2)\n"
STATE = """        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])  # (1)
"""
FAULTS = {  # check: (in the docs' example replace, by, part of the message)
    "every parameter goes downhill": (RETURN, RETURN.replace("momentum /", "-momentum /"), "sign"),
    "same gradients give the same weights": (
        RETURN,
        RETURN.replace("momentum /", "momentum.add_(torch.randn(1)) /"),
        "a torch.Generator of its own",
    ),
    "resuming equals not stopping": (
        STATE,
        """        self.kept = getattr(self, "kept", {})
        old = self.kept.get(grad.shape, torch.zeros_like(grad))
        momentum = self.kept[grad.shape] = old.lerp(grad, 1 - group["momentum"])
""",
        "belongs into `state` or `group`",
    ),
    "a batch moves as its members alone": (
        "(range(1, grad.ndim))",
        "(range(grad.ndim))",
        "The first dimension",
    ),
    "zero gradients leave nothing but decay": (
        "norm.clamp(min=torch.finfo(norm.dtype).tiny)",
        "norm",
        "a division by zero",
    ),
    "a nan is kept": (STATE, "        grad = grad.nan_to_num()\n" + STATE, "without a word"),
    "gradients stay untouched": (
        "    def direction(",
        """    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    def direction(""",
        "copy it first",
    ),
    "tied weights stay tied": (
        "    def direction(",
        """    def attach(self, model):
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight = torch.nn.Parameter(layer.weight.clone())

    def direction(""",
        "layers are to be watched, not replaced",
    ),
    "the learning rate of the group is used": (
        RETURN,
        RETURN.replace("return momentum", 'return max(0.1, group["lr"]) / group["lr"] * momentum'),
        "ZeroDivisionError",
    ),
    "solves: Rosenbrock's valley": (
        RETURN,
        RETURN.replace("momentum /", "momentum.abs() /"),
        "optimizers that work get below",
    ),
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The docs' example as a plugin, its Python file and its YAML file."""
    write_docs_example(tmp_path)
    (tmp_path / "gptopt").rename(tmp_path / "mine")
    (tmp_path / "hydra_conf").rename(tmp_path / "mine" / "hydra_conf")
    monkeypatch.setenv("GPTOPT_PLUGINS", "")
    return tmp_path / "mine"


optim = importlib.import_module("gptopt.cli.optim")  # its name in the package is the command


def check(what: Path | str) -> Result:
    return CliRunner().invoke(main, ["optim", "check", str(what)])


@pytest.mark.parametrize("promise", FAULTS)
def test_a_broken_promise_is_found_and_told(
    plugin: Path, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, (old, new, words) = plugin / "optim" / "nsgd.py", FAULTS[promise]
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    params = catalogue.find().entry("nsgd").params
    verdict = judge(promise, checks(params)[promise], "nsgd")
    assert verdict.outcome == "broken"
    assert words in verdict.message


def test_the_example_of_the_docs_keeps_all_and_its_cost_is_counted(plugin: Path) -> None:
    result = check(plugin)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("nsgd:\n  ok   the yaml lists the keys of build\n")
    # One buffer in float32; no product of matrices.
    assert "4.00 bytes of state per parameter, 0 GFLOP" in result.output


def test_a_plugin_is_found_by_any_of_its_files(plugin: Path) -> None:
    expected = optim._asked(str(plugin))
    assert [option for option, _ in expected] == ["nsgd"]
    for file in ("optim/nsgd.py", "hydra_conf/optimizer/nsgd.yaml"):
        assert optim._asked(str(plugin / file)) == expected


def test_a_key_that_build_does_not_take_is_named_and_ends_with_1(plugin: Path) -> None:
    file = plugin / "hydra_conf/optimizer/nsgd.yaml"
    file.write_text(file.read_text("utf-8").replace("  momentum:", "  momentun:"), "utf-8")
    result = check(plugin)
    assert result.exit_code == 1
    assert (
        "FAIL the yaml lists the keys of build: build in nsgd.py does not take momentun, which"
        " the YAML has. Did you mean 'momentum'?" in result.output
    )


def test_a_syntax_error_is_told_with_its_line(plugin: Path) -> None:
    with open(plugin / "optim/nsgd.py", "a", encoding="utf-8") as file:
        file.write("\ndef broken(:\n")
    result = check(plugin)
    assert result.exit_code == 2
    assert "nsgd.py, line 35: invalid syntax" in result.output


def test_a_file_that_cannot_be_imported_is_told_once(plugin: Path) -> None:
    file = plugin / "optim/nsgd.py"
    file.write_text(file.read_text("utf-8").replace("import torch\n", "import torhc\n"), "utf-8")
    lines = check(plugin).output.splitlines()
    (failed,) = [line for line in lines if "FAIL" in line]
    assert "ModuleNotFoundError: No module named 'torhc'" in failed
    assert sum(str(file) in line for line in lines) == 1
    rest = [line for line in lines if "not reached: same error as `every parameter is" in line]
    assert len(rest) == len(checks({"name": "nsgd"})) - 3  # keys and values need no import
    assert lines[-1] == "1 failed"


@pytest.mark.parametrize("value", ["abc", "0", "-0.1", "null"])
def test_a_value_of_the_yaml_that_build_does_not_take_is_told_before_all_else(
    plugin: Path, value: str
) -> None:
    file = plugin / "hydra_conf/optimizer/nsgd.yaml"
    text = re.sub(r"\blr: \S+", f"lr: {value}", file.read_text("utf-8"))
    file.write_text(text, "utf-8")
    result = check(plugin)
    assert result.exit_code == 1
    (failed,) = [line for line in result.output.splitlines() if "FAIL" in line]
    shown = "'abc'" if value == "abc" else value
    words = f"optimizer.optimizer_params.lr={shown}: it takes a number above 0."
    assert failed == f"  FAIL the values of the yaml are of their types: {words}"
    assert result.output.count("not reached") == len(checks({"name": "nsgd"})) - 2


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        ("momentum.sum(dim=one_parameter, keepdim=True)", "is a tensor of shape"),
        ("momentum[0]", "is a tensor of shape"),
        ("None", "is NoneType"),
    ],
)
def test_a_direction_of_another_shape_is_no_step(plugin: Path, direction: str, said: str) -> None:
    file = plugin / "optim/nsgd.py"
    text = file.read_text("utf-8").replace(RETURN, f"        return {direction}\n")
    file.write_text(text, "utf-8")
    result = check(plugin)
    assert f"the direction of NSGD {said}" in result.output
    assert "it takes the shape of grad, (B, *shape), here (" in result.output


def test_a_yaml_file_that_cannot_be_read_is_told_with_its_line(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plugin / "hydra_conf/optimizer/nsgd.yaml"
    file.write_text("optimizer_params:\n\tname: nsgd\n", "utf-8")
    result = check(plugin)
    assert result.exit_code == 2
    place = f'in "{file}", line 2, column 1'
    assert place in result.output
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    with pytest.raises(ConfigError) as raised:
        compose(["optimizer=nsgd"])
    assert place in str(raised.value)


BROKEN = {  # file of the plugin beside the docs' example: its content, what is said of it
    "hydra_conf/optimizer/mine.yaml": ("optimizer_params:\n\tname: mine\n", "line 2, column 1"),
    "hydra_conf/optimizer/date.yaml": ("optimizer_params: {since: 2026-13-01}", "month must be"),
    "hydra_conf/optimizer/other.yaml": ("optimizer_params: {name: nobody}", "name: nobody: there"),
    "hydra_conf/optimizer/adam.yaml": ("optimizer_params: {name: nsgd}", "adam.yaml has the name"),
    "optim/muon.py": ("def build(groups, *, lr): ...", "muon.py has the name of"),
    "optim/nsgd.py": ("def build(groups, *, lr:\n", "nsgd.py, line 1: '(' was never closed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_a_plugin_stops_nothing_else_and_is_told_in_a_line(
    plugin: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words = BROKEN[name]
    monkeypatch.setattr(verdicts, "checks", lambda params: {})  # they take seconds
    (plugin / name).write_text(content, "utf-8")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    for command in (["list"], ["show", "sgd"], ["check", "sgd"], ["bench", "sgd", "--rounds", "1"]):
        done = CliRunner().invoke(main, ["optim", *command])
        assert done.exit_code == 0, done.output
        assert "sgd" in done.stdout
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    asked = check(plugin / name)
    assert asked.exit_code == 2
    assert words in asked.stderr
    if name.endswith((".py", "adam.yaml")):
        return
    for command in ("show", "check"):
        asked = CliRunner().invoke(main, ["optim", command, Path(name).stem])
        assert asked.exit_code == 2
        assert words in asked.stderr
        assert "left out" not in asked.stderr


@pytest.mark.parametrize("words", [["list", "--model", "gpt2"], ["bench", "--rounds", "1"]])
def test_a_plugin_that_cannot_be_imported_stops_nothing_else(
    plugin: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plugin / "optim/nsgd.py"
    file.write_text(file.read_text("utf-8").replace("import torch\n", "import torhc\n"), "utf-8")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    known = catalogue.find()
    few = catalogue.Catalogue({name: known.entries[name] for name in ("nsgd", "sgd")}, {})
    monkeypatch.setattr(catalogue, "find", lambda: few)
    done = CliRunner().invoke(main, ["optim", *words])
    assert done.exit_code == 0, done.output
    assert "\nsgd " in done.stdout
    assert "nsgd.py, line " in done.stderr
    assert "No module named 'torhc'" in done.stderr


@pytest.mark.parametrize("option", ["--rounds", "--rows"])
def test_a_bench_of_nothing_is_refused(option: str) -> None:
    result = CliRunner().invoke(main, ["optim", "bench", "adamw", option, "0"])
    assert result.exit_code == 2
    assert "0 is not in the range x>=1" in result.output


def test_a_file_that_lies_elsewhere_is_answered_with_the_layout(plugin: Path) -> None:
    loose = plugin / "optim" / "other.py"
    loose.write_text("", "utf-8")
    result = check(loose)
    assert result.exit_code == 2
    assert "hydra_conf/optimizer/NAME.yaml  with `name: NAME`" in result.output


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    result = check("adamwo")
    assert result.exit_code == 2
    assert "Did you mean 'adamw'?" in result.output


def test_list_and_show_tell_what_the_files_say() -> None:
    listed = CliRunner().invoke(main, ["optim", "list"]).output.splitlines()
    files = {file.stem for file in (HYDRA_CONF / "optimizer").glob("*.yaml")}
    assert {line.split()[0] for line in listed[1:]} == files
    assert "Jordan et al. (2024)" in next(line for line in listed if line.startswith("muon "))
    shown = CliRunner().invoke(main, ["optim", "show", "muon"]).output
    assert "O  = U V^T  where  N = U S V^T               (3)" in shown
    assert "ns_steps: 5         # iterations of the first two" in shown


@pytest.mark.parametrize(
    ("name", "bytes_per_parameter"),
    # Buffers in float32: one, two; matrices have one with Muon, the rest two with its AdamW.
    [("lion", lambda matrices, rest: 4), ("adamw", lambda matrices, rest: 8),
     ("muon", lambda matrices, rest: (4 * matrices + 8 * rest) / (matrices + rest))],
)  # fmt: skip
def test_the_state_is_counted(name: str, bytes_per_parameter) -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 6))
    roles = {n: "matrix" if n.endswith("weight") else "vector" for n, _ in model.named_parameters()}
    found = cost(from_yaml(name), model, roles)
    assert found is not None
    # torch's AdamW keeps a step count for each parameter beside, in 4 bytes
    assert found.state_bytes == pytest.approx(bytes_per_parameter(48, 10), abs=0.3)


def test_the_products_of_muon_are_counted() -> None:
    # Each of 5 steps on (4, 6): X X^T, its square, times X: 2 * (4*6*4 + 4*4*4 + 4*4*6).
    model = torch.nn.Linear(6, 4, bias=False, device="meta")
    found = cost(from_yaml("muon"), model, {"weight": "matrix"})
    assert found is not None
    assert found.flops == 5 * 2 * (96 + 64 + 96)


def test_a_rule_whose_way_depends_on_numbers_has_no_count(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plugin / "optim" / "nsgd.py"
    branch = RETURN.replace("return", "if norm.any():\n            return")
    file.write_text(file.read_text("utf-8").replace(RETURN, branch + RETURN), "utf-8")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(plugin))
    model = torch.nn.Linear(6, 4, bias=False, device="meta")
    assert cost(catalogue.find().entry("nsgd").params, model, {"weight": "matrix"}) is None


def test_bench_times_each_once_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(timing, "_clock", lambda device: next(clock))
    with torch.device("meta"):
        model = Toy()
    params = {"a": from_yaml("lion"), "b": from_yaml("sgd")}
    found = timing.time_steps(params, model, ROLES, rows=8, rounds=2)
    # Of a unit each: what is done with inputs, and the rest.
    assert found == {name: timing.Times(step=2, inputs=1) for name in params}
    assert next(clock) == 3 * 2 * 3  # three looks at it, for two optimizers in three rounds


def test_bench_shows_hooks_the_inputs_of_each_layer_in_each_step() -> None:
    with torch.device("meta"):
        model = Toy()
    matrices = {name: shape for name, (role, shape) in PARAMETERS.items() if role == "matrix"}
    seen = []
    with mock.patch.object(InputMoments, "_count", lambda *args: seen.append(args[-1][0].shape)):
        params = {"dap": from_yaml("dap-ns-nadam")}
        timing.time_steps(params, model, ROLES, rows=8, rounds=2)
    assert seen == 3 * [(8, columns) for _, columns in matrices.values()]


def test_the_toy_problems_are_the_same_each_time_and_not_solved_at_the_start() -> None:
    for make in gym.PROBLEMS:
        one, other = make(), make()
        assert torch.equal(one.loss(3), other.loss(3))
        assert one.score() > 0


def test_catalogue_families_name_optimizers_that_exist() -> None:
    names = {e.params["name"] for e in catalogue.find().entries.values()}
    listed = [name for family in catalogue.FAMILIES.values() for name in family]
    assert set(listed) <= names
    assert len(listed) == len(set(listed))
