"""Claims about optimizers as files: what is said, which sweep shows it, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gptopt.config.problems import ConfigError, Problem, nearest, show
from gptopt.results.select import Selection

CLAIMS = Path("analysis/claims")
TESTS = ("welch", "paired")

Keys = Mapping[str, str]
COMMON: Keys = {
    "claim": "text",
    "sweep": "text",
    "among": "selection",
    "kind": "text",
    "rates": "count",
    "seeds": "count",
    "holds": "verdict",
}
SIDES: Keys = {"better": "selection", "worse": "selection"}
TESTED: Keys = {"margin": "number", "test": "test", "alpha": "chance"}
KINDS: Mapping[str, Keys] = {
    "margin": {**SIDES, **TESTED},
    "excess": {**SIDES, **TESTED, "ceiling": "number"},
    "steps": {**SIDES, "ratio": "number"},
    "interior": {"of": "selection"},
}
"""What each kind of claim takes beside ``COMMON``."""
MEANING = {
    "text": "a text",
    "selection": "a selection such as optimizer=muon",
    "count": "a whole number above 0",
    "verdict": "true, false, or null while nobody has judged it",
    "number": "a number of 0 or more",
    "test": f"one of {', '.join(TESTS)}",
    "chance": "a number between 0 and 1",
}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        file: Where it stands.
        text: In words.
        sweep: The sweep file whose runs show it.
        among: Which runs count at all: those of one workload.
        kind: See ``KINDS``.
        sides: The selections it is about: better and worse, or the only one.
        rates: Learning rates that each side must have been tuned with, at least.
        seeds: Runs that each of these must have, at least.
        given: What only this kind takes.
        holds: The verdict on record; None while there is none.
    """

    file: Path
    text: str
    sweep: str
    among: Selection
    kind: str
    sides: tuple[Selection, ...]
    rates: int
    seeds: int
    given: Mapping[str, Any]
    holds: bool | None

    @property
    def name(self) -> str:
        """Its short name."""
        return self.file.stem

    @property
    def size(self) -> int:
        """How many runs it takes at least."""
        return self.rates * self.seeds * len(self.sides)


def read_claims(files: Sequence[Path]) -> list[Claim]:
    """Reads claim files.

    Raises:
        ConfigError: With every problem of all of them.
    """
    problems: list[Problem] = []
    claims = [claim for file in files if (claim := _read(file, problems)) is not None]
    if problems:
        raise ConfigError(problems)
    return claims


def find(names: Sequence[str]) -> list[Path]:
    """The files of claims by name or path; all of ``CLAIMS`` when none is named.

    Raises:
        ValueError: There is no such claim, or none at all.
    """
    known = {file.stem: file for file in sorted(CLAIMS.glob("*.yaml"))}
    if not names and not known:
        raise ValueError(f"{CLAIMS}: no claim (*.yaml).")
    found = []
    for name in names:
        file = known.get(name, Path(name))
        if not file.is_file():
            hint = nearest(name, known) or f" There are: {', '.join(known) or 'none'}."
            raise ValueError(f"{name}: no claim of {CLAIMS} and no file.{hint}")
        found.append(file)
    return found or list(known.values())


def _read(file: Path, problems: list[Problem]) -> Claim | None:
    def complain(message: str, key: str = "") -> None:
        problems.append(Problem(key, message, str(file)))

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        complain(f"cannot be read: {error}")
        return None
    if not isinstance(document, dict):
        complain("it takes a mapping of keys to values.")
        return None
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), KINDS)
        complain(f"kind={show(kind)}: it takes one of {', '.join(KINDS)}.{hint}", "kind")
        return None
    before = len(problems)
    keys = {**COMMON, **KINDS[kind]}
    for key in sorted(map(str, document.keys() - keys.keys())):
        hint = nearest(key, keys)
        complain(f"there is no key {key!r}.{hint} A claim of kind {kind} takes: {', '.join(keys)}.")
    for key in sorted(keys.keys() - document.keys()):
        complain(f"the key {key!r} is missing: {MEANING[keys[key]]}.", key)
    for key, type_ in keys.items():
        if key in document and (why := _fault(document[key], type_)):
            complain(f"{key}={show(document[key])}: {why}.", key)
    if len(problems) > before:
        return None
    sides = [key for key, type_ in KINDS[kind].items() if type_ == "selection"]
    return Claim(
        file,
        document["claim"],
        document["sweep"],
        Selection.parse(document["among"]),
        kind,
        tuple(Selection.parse(document[key]) for key in sides),
        document["rates"],
        document["seeds"],
        {key: document[key] for key in KINDS[kind] if key not in sides},
        document["holds"],
    )


def _fault(value: Any, type_: str) -> str:
    """What is wrong with a value; nothing when it is as it must be."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    right = {
        "text": isinstance(value, str) and bool(value),
        "selection": isinstance(value, str),
        "count": is_number and isinstance(value, int) and value > 0,
        "verdict": value is None or isinstance(value, bool),
        "number": is_number and value >= 0,
        "test": value in TESTS,
        "chance": is_number and 0 < value < 1,
    }[type_]
    if not right:
        return f"it takes {MEANING[type_]}"
    if type_ == "selection":
        try:
            Selection.parse(value)
        except ValueError as error:
            return str(error).removesuffix(".")
    return ""
