"""The layers of the house, read from the import statements.

train -> parts -> shared;  train -> shared;  launch -> shared;  analysis -> shared
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = {"run_hydra", "gptopt.job", "gptopt.warm", "gptopt.cli", "gptopt"}
SHARED = (
    "gptopt.config",
    "gptopt.files",
    "gptopt.layout",
    "gptopt.ranking",
    "gptopt.source",
    "gptopt.state",
)
LAUNCH = ("gptopt.sweep", "gptopt.dispatch")
PARTS = ("gptopt.models", "gptopt.optim", "gptopt.data", "gptopt.schedules", "gptopt.loss")
ANALYSIS = ("gptopt.results",)
MAY_IMPORT = {
    "shared": {"shared"},
    "launch": {"launch", "shared"},
    "parts": {"parts", "shared"},
    "analysis": {"analysis", "shared"},
    "train": {"train", "parts", "shared"},
    "top": {"top", "train", "parts", "shared", "launch", "analysis"},
}
WITHOUT_TORCH = {"shared", "launch", "analysis"}
ONLY_IN = {  # package -> the only files that may import it
    "hydra": {
        "run_hydra",
        "gptopt.config.compose",
        "gptopt.config.typed",
        "gptopt.sweep.plan",
        "gptopt.sweep.overrides",
    },
    "wandb": {"gptopt.tracking.wandb"},
}


def layer(module: str) -> str:
    for name, prefixes in {
        "shared": SHARED,
        "launch": LAUNCH,
        "parts": PARTS,
        "analysis": ANALYSIS,
    }.items():
        if any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes):
            return name
    is_top = module in TOP or module.startswith("gptopt.cli.")
    return "top" if is_top else "train"


def modules() -> dict[str, Path]:
    found = {"run_hydra": ROOT / "run_hydra.py"}
    for path in (ROOT / "gptopt").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, module, at run time) of every import, also those inside functions."""
    tree = ast.parse(path.read_text())
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, node not in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found.append((node.lineno, str(node.module), node not in typing_only))
            if node.module == "gptopt":
                names = [(node.lineno, f"gptopt.{alias.name}", True) for alias in node.names]
                found[-1:] = names
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_downwards(module):
    path = modules()[module]
    for line, imported, at_run_time in imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports {imported}"
        if imported.startswith("gptopt") and at_run_time:
            mine, theirs = layer(module), layer(imported)
            assert theirs in MAY_IMPORT[mine], f"{where}: {mine} may not import {theirs}"
        package = imported.split(".")[0]
        if package == "torch":
            assert layer(module) not in WITHOUT_TORCH, f"{where}: this layer answers without torch"
        if package in ONLY_IN:
            assert module in ONLY_IN[package], f"{where}: only {ONLY_IN[package]} may"
        if package in ("pandas", "matplotlib"):
            assert layer(module) == "analysis", f"{where}: only gptopt.results may"


def test_models_and_optimizers_do_not_know_each_other():
    for module, path in modules().items():
        for other in (("gptopt.models", "gptopt.optim"), ("gptopt.optim", "gptopt.models")):
            if module.startswith(other[0]):
                assert not [i for _, i, _ in imports(path) if i.startswith(other[1])]


def test_there_are_no_import_cycles():
    found = modules()
    graph = {m: {i for _, i, now in imports(p) if now and i in found} for m, p in found.items()}
    for module in found:  # a package's parts import it, and it may show some of them
        graph[module] -= {module, module.rpartition(".")[0]}
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"cycle: {' -> '.join((*path, module))}"
        if module not in state:
            state[module] = "open"
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            state[module] = "done"

    for module in sorted(found):
        visit(module, ())


@pytest.mark.parametrize(
    "arguments",
    [
        ["run_hydra.py", "--help"],
        ["run_hydra.py", "model=gpt2", "--cfg", "job"],
        ["-m", "gptopt.cli", "--help"],
        ["-m", "gptopt.cli", "sweep", "plan", "params/smoke.json"],
        ["-c", "import gptopt.results, gptopt.sweep.plan, gptopt.dispatch"],
    ],
)
def test_answers_that_need_no_torch_do_not_import_it(arguments):
    command = [sys.executable, "-X", "importtime", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-2000:]
    imported = {line.split("|")[-1].strip() for line in answer.stderr.splitlines()}
    assert not {"torch", "wandb", "pandas", "matplotlib", "scipy"} & imported
