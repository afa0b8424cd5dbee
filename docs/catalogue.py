"""Writes optimizers.md: ``python docs/catalogue.py``. Takes a minute, for the costs.

What an optimizer is comes from the docstring of its Python file, its settings from its YAML
file, and its costs are counted on gpt2 by gptopt/optim/common/cost.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import reference

from gptopt.config import catalogue, resolve
from gptopt.config.catalogue import Entry

PAGE = Path(__file__).with_name("optimizers.md")
FIGURES = Path(__file__).with_name("figures")
MODEL = "gpt2"
HEAD = f"""# Optimizers

This page is written by `python docs/catalogue.py` from the files of the optimizers. The same on
the command line:

```bash
gptopt optim list --model gpt2   # family, source and cost of each
gptopt optim show muon           # equations and settings
gptopt optim check muon          # does it keep the contract?
gptopt optim bench muon adamw    # how long does a step take?
```

State is what an optimizer keeps beyond weights and gradients, in bytes per parameter of `{MODEL}`.
GFLOP are those of the matrix products of one step, without those inside of `svd`, `qr` and
`eigh`; a forward and backward pass takes about 750 GFLOP per 1,000 tokens. Both are counted
with the settings of the YAML file, in the first steps: later kron's are fewer, since its
preconditioner learns less often. Not in them is what an optimizer does in the passes
through the model: DAP and Newton-Muon form X^T X of each layer's inputs there.

`python run_hydra.py experiment=NAME` repeats settings that others published: `gpt-opt-*`,
`wen-130m-*`, `semenov-124m-*`, `track3-*`. Without the optimizer's name (`experiment=wen-130m
optimizer=lion`) it is the setting of that study for any optimizer.
[configuration.md](configuration.md) lists them all.
"""
Costs = Mapping[str, tuple[str, str]]
"""Option -> its two cells: state, GFLOP."""


def anchor(text: str) -> str:
    """A heading or a file name: lower case, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def families() -> dict[str, list[Entry]]:
    """The optimizers of this repository by family, in the order of the page."""
    known = {
        e.option: e
        for e in catalogue.find().entries.values()
        if e.config.is_relative_to(reference.HYDRA_CONF)
    }
    order = [*catalogue.FAMILIES, catalogue.OTHERS, catalogue.LIBRARIES]
    grouped = {name: [e for e in known.values() if e.family == name] for name in order}
    return {name: entries for name, entries in grouped.items() if entries}


def family(name: str, entries: list[Entry], costs: Costs) -> Iterator[str]:
    """The lines of one family."""
    yield from [f"## {name}", ""]
    yield "| `optimizer=` | what it is | state B/param | GFLOP/step | source |"
    yield "|---|---|---|---|---|"
    for entry in entries:
        state, flops = costs.get(entry.option, ("?", "?"))
        title = entry.header.split(". ")[0].rstrip(".")
        link = f"[{entry.option}](#{anchor(entry.option)})"
        yield f"| {link} | {title} | {state} | {flops} | {entry.source} |"
    yield ""
    figure = FIGURES / f"{anchor(name)}.png"
    if figure.is_file():
        yield from [f"![{name}](figures/{figure.name})", ""]
    for entry in entries:
        yield from section(entry)


def section(entry: Entry) -> Iterator[str]:
    """The lines of one optimizer."""
    yield from [f"### {entry.option}", ""]
    if not resolve.library_of(entry.params["name"]):
        yield from ["```text", entry.docstring, "```", ""]
    header, rows = reference.rows_of("optimizer", entry.option)
    kinds = reference.types("optimizer", entry.option)
    yield from [
        f"{header} {entry.selection}".rstrip(),
        "",
        *reference.table("optimizer", rows, kinds),
        "",
    ]


def page(costs: Costs) -> str:
    """The whole page."""
    lines = [HEAD]
    for name, entries in families().items():
        lines += family(name, entries, costs)
    return "\n".join(lines)


def costs_on(text: str) -> dict[str, tuple[str, str]]:
    """The costs that a page tells."""
    row = re.compile(r"^\| \[([\w-]+)\]\(#.*?\) \| .*? \| (\S+) \| (\S+) \|", re.MULTILINE)
    return {option: (state, flops) for option, state, flops in row.findall(text)}


def count(option: str) -> tuple[str, str]:
    """The costs of one optimizer, counted."""
    import torch

    from gptopt.config.compose import compose
    from gptopt.models import build_model
    from gptopt.optim.common.cost import cost

    config = compose([f"model={MODEL}", f"optimizer={option}"])
    with torch.device("meta"):
        model = build_model(config.model.family, config.model.config)
    roles = model.parameter_roles()  # type: ignore[operator]
    found = cost(config.optimizer.optimizer_params, model, roles)
    return (f"{found.state_bytes:.2f}", f"{found.flops / 1e9:,.0f}") if found else ("-", "-")


if __name__ == "__main__":
    counted = {e.option: count(e.option) for group in families().values() for e in group}
    PAGE.write_text(page(counted), encoding="utf-8")
