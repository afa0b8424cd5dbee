"""``gptopt optim``: list, show, check, bench."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptopt.cli.common import reports_errors
from gptopt.state import ExitCode

if TYPE_CHECKING:
    from gptopt.config.catalogue import Catalogue, Entry
    from gptopt.config.problems import Problem


@click.group()
def optim() -> None:
    """Look at optimizers: what there is, what it costs, whether it keeps the contract."""


@optim.command("list")
@click.option("--model", help="Also count state and FLOPs on this model: gpt2, gpt-small, ...")
@reports_errors
def list_command(model: str | None) -> None:
    """Print every optimizer: its family, its source, and with --model what it costs."""
    entries = list(_catalogue().entries.values())
    rows = [[e.option, e.family, e.source] for e in entries]
    titles = ["optimizer", "family", "source"]
    if model is not None:
        titles[1:1] = ["state B/param", "GFLOP/step"]
        shapes = _model(model)
        for entry, row in zip(entries, rows, strict=True):
            row[1:1] = _cost(entry, *shapes)
    _print_table([titles, *rows])
    if model is not None:
        click.echo(
            "\nstate: beyond weights and gradients. GFLOP: of matrix products, without those"
            " inside svd, qr, eigh.\n-: depends on the numbers."
        )


@optim.command()
@click.argument("name")
@reports_errors
def show(name: str) -> None:
    """Print what NAME computes, with its source, its settings, and what it brings along."""
    found = _catalogue(name).entry(name)
    text = found.config.read_text(encoding="utf-8").rstrip()
    parts = [str(found.part), found.docstring, str(found.config), text, found.selection]
    click.echo("\n\n".join(filter(None, parts)))


@optim.command()
@click.argument("what", metavar="NAME|PATH|LIBRARY.CLASS")
@reports_errors
def check(what: str) -> None:
    """Hold an optimizer to what all optimizers promise, and to five toy problems.

    NAME is an option of optimizer=. PATH is a plugin: its directory, or a .py or .yaml file in
    it. LIBRARY.CLASS is any class of pytorch_optimizer, schedulefree or prodigyopt. Takes some
    seconds; exit code 1 if something fails.
    """
    import torch

    from gptopt.optim.checking.verdicts import verdicts
    from gptopt.optim.common.cost import cost

    torch.set_num_threads(1)
    failed = 0
    for option, params in _asked(what):
        click.echo(f"{option}:")
        for verdict in verdicts(params):
            mark = {"kept": "ok", "broken": "FAIL"}.get(verdict.outcome, "-")
            failed += verdict.outcome == "broken"
            said = "not reached: " * (verdict.outcome == "not reached") + verdict.message
            click.echo(f"  {mark:4} {verdict.check}" + f": {said}".rstrip(": "))
        found = None if failed else cost(params, *_model("gpt2"))
        if found is not None:
            click.echo(
                f"       costs on gpt2: {found.state_bytes:.2f} bytes of state per parameter,"
                f" {found.flops / 1e9:,.0f} GFLOP of matrix products per step"
            )
    click.echo(f"{failed} failed" if failed else "nothing failed")
    sys.exit(int(ExitCode.CRASH if failed else ExitCode.DONE))


@optim.command()
@click.argument("names", nargs=-1)
@click.option("--model", default="gpt2", show_default=True, help="Whose layers give the shapes.")
@click.option("--layers", default=1, show_default=True, help="How many of them.")
@click.option(
    "--rows",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    help="Tokens of a step on this device.",
)
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rounds that are timed.",
)
@reports_errors
def bench(names: tuple[str, ...], model: str, layers: int, rows: int, rounds: int) -> None:
    """Time a step of each of NAMES (all, if none is given) on the matrices of a model.

    Every round runs each once, in turn, so that what else the machine does hits all alike. The
    first round makes the state and is not timed. CPU or GPU seconds; the median of the rounds,
    so what is done in fewer than half of the steps is not in it.

    `inputs` is the part of a step that is spent in the forward passes: X^T X of each layer with
    --rows rows, where an optimizer forms it. It grows with the batch, the rest does not.
    """
    from gptopt.optim.common import timing

    known = _catalogue(*names)
    found, roles = _model(model, layers)
    entries = [known.entry(name) for name in names] or [
        e for e in known.entries.values() if not _tell_failure(e, found, roles)
    ]
    asked = {e.option: _plain(e) for e in entries}
    timed = timing.time_steps(asked, found, roles, rows=rows, rounds=rounds)
    base = next(iter(timed.values())).step
    titles = ["optimizer", "ms/step", f"of {next(iter(timed))}", f"inputs ms ({rows} rows)"]
    table = [
        [name, f"{1000 * t.step:.2f}", f"{t.step / base:.2f}", f"{1000 * t.inputs:.2f}"]
        for name, t in timed.items()
    ]
    _print_table([titles, *table])


def _asked(what: str) -> list[tuple[str, dict[str, Any]]]:
    """(option, optimizer_params) of all that ``what`` means.

    A plugin that is only asked about becomes one for this process.
    """
    from gptopt.config import resolve
    from gptopt.config.problems import ConfigError

    path = Path(what).expanduser().absolute()
    if not path.exists():
        if resolve.library_of(what):
            from gptopt.optim.common import bridge

            return [(what, bridge.params_of(what))]
        return [(what, _plain(_catalogue(what).entry(what)))]
    depth = {".py": 1, ".yaml": 2}.get(path.suffix)
    root = path if depth is None else path.parents[depth]
    if root not in [resolve.PACKAGE, *resolve.plugin_directories()]:
        listed = os.environ.get(resolve.PLUGINS)
        os.environ[resolve.PLUGINS] = os.pathsep.join([str(root), *([listed] if listed else [])])
    found = _catalogue(path)
    ours = [e for e in found.entries.values() if root / "hydra_conf" in e.config.parents]
    chosen = [e for e in ours if path in (root, e.part, e.config)]
    wrong = {file: problem for file, problem in found.broken.items() if root in file.parents}
    if wrong and (not chosen or path == root):
        raise ConfigError([wrong[path]] if path in wrong else wrong.values())
    if not chosen:
        raise ValueError(
            f"{path} is no optimizer of a plugin. One is laid out like this, wherever it lies:\n"
            f"  {root}/optim/NAME.py                   with a function `build`\n"
            f"  {root}/hydra_conf/optimizer/NAME.yaml  with `name: NAME`"
        )
    return [(e.option, _plain(e)) for e in chosen]


def _catalogue(*asked: str | Path) -> Catalogue:
    """The optimizers there are; tells the files of plugins that are left out.

    Args:
        asked: Options and paths of which the caller itself says what is wrong.
    """
    from gptopt.config import catalogue

    found = catalogue.find()
    for file, problem in found.broken.items():
        is_asked = any(
            catalogue.is_optimizer(file, one)
            if isinstance(one, str)
            else one in (file, *file.parents)
            for one in asked
        )
        if not is_asked:
            _tell(problem)
    return found


def _tell(problem: Problem) -> None:
    """One line on stderr about a file of a plugin that is left out."""
    click.echo(f"left out: {' '.join(str(problem).split())}", err=True)


def _plain(entry: Entry) -> dict[str, Any]:
    """Its optimizer_params with interpolations worked out."""
    from omegaconf import OmegaConf

    node = OmegaConf.create({"optimizer_params": entry.params})
    resolved = OmegaConf.to_container(node, resolve=True)
    assert isinstance(resolved, dict)
    return resolved["optimizer_params"]


def _model(name: str, layers: int | None = None) -> tuple[Any, dict[str, str]]:
    """A model without numbers in it, and its roles.

    A plugin's file with the name of one of ours, which no run may have, does not stop this.
    """
    import torch

    from gptopt.config.checks import check
    from gptopt.config.compose import draft
    from gptopt.layout import HYDRA_CONF
    from gptopt.models import build_model

    fewer = [] if layers is None else [f"model.config.n_layer={layers}"]
    made = draft([f"model={name}", *fewer], config_dir=HYDRA_CONF, origin="command line")
    raw, unresolved = made.values()
    config = check(raw, made.where, [*made.problems, *unresolved])
    with torch.device("meta"):
        model: Any = build_model(config.model.family, config.model.config)
    return model, model.parameter_roles()


def _tell_failure(entry: Entry, model: Any, roles: Mapping[str, str]) -> bool:
    """Whether an optimizer of a plugin cannot be made for a model; tells why."""
    from gptopt.config.problems import Problem
    from gptopt.layout import HYDRA_CONF
    from gptopt.optim.checking.verdicts import place
    from gptopt.optim.common.cost import cost

    if entry.config.is_relative_to(HYDRA_CONF):
        return False
    try:
        cost(_plain(entry), model, roles)
    except Exception as error:  # of the plugin, whatever it is
        _tell(Problem("", place(error, entry.params["name"])))
        return True
    return False


def _cost(entry: Entry, model: Any, roles: Mapping[str, str]) -> list[str]:
    from gptopt.config import resolve
    from gptopt.optim.common.cost import cost

    library = resolve.library_of(entry.params["name"])
    is_there = library is None or resolve.is_installed(library)
    if not is_there or _tell_failure(entry, model, roles):
        return ["-", "-"]
    found = cost(_plain(entry), model, roles)
    return [f"{found.state_bytes:.2f}", f"{found.flops / 1e9:,.0f}"] if found else ["-", "-"]


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
