"""All that can be found out about an optimizer without training a GPT: promises, toy problems."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from gptopt.config.resolve import find_part
from gptopt.optim.checking import gym
from gptopt.optim.checking.contract import (
    CHECKS,
    YAML_CHECKS,
    BrokenPromiseError,
    NotApplicableError,
    Params,
)

Outcome = Literal["kept", "broken", "not applicable", "not reached"]


@dataclass(frozen=True)
class Verdict:
    """What became of one check.

    Attributes:
        check: Its name for people.
        outcome: "not reached" where an earlier verdict tells the cause.
        message: What to change, or what was found.
        cause: Place and type of the error that ended it; empty where none did.
    """

    check: str
    outcome: Outcome
    message: str = ""
    cause: str = ""


def verdicts(params: Params) -> Iterator[Verdict]:
    """One verdict after another, as the checks are made; an error of the optimizer is one too.

    Args:
        params: The node optimizer_params of its YAML file.
    """
    first_of: dict[str, str] = {}  # cause -> the check that told it
    broken_yaml = ""
    for name, check in checks(params).items():
        if broken_yaml:
            yield Verdict(name, "not reached", f"as `{broken_yaml}` failed")
            continue
        verdict = judge(name, check, params["name"])
        if verdict.outcome == "broken" and name in map(_title, YAML_CHECKS):
            broken_yaml = name
        if verdict.cause and first_of.setdefault(verdict.cause, name) != name:
            verdict = Verdict(name, "not reached", f"same error as `{first_of[verdict.cause]}`")
        yield verdict


def checks(params: Params) -> dict[str, Callable[[], str | None]]:
    """Every check by its name for people."""
    named: dict[str, Callable[[], str | None]] = {
        _title(check): partial(check, params) for check in CHECKS
    }
    return named | {f"solves: {make.name}": partial(_solve, make, params) for make in gym.PROBLEMS}


def _title(check: Callable[[Params], None]) -> str:
    return check.__name__.replace("_", " ")


def judge(name: str, check: Callable[[], str | None], optimizer: str) -> Verdict:
    """Makes one check of the optimizer of this name."""
    try:
        return Verdict(name, "kept", check() or "")
    except NotApplicableError as reason:
        return Verdict(name, "not applicable", str(reason))
    except BrokenPromiseError as error:
        return Verdict(name, "broken", str(error))
    except Exception as error:  # of the optimizer, whatever it is
        return Verdict(name, "broken", place(error, optimizer), _cause(error, optimizer))


def _solve(make: type[gym.Problem], params: Params) -> str:
    score = gym.play(make, params)
    said = f"loss {score.start:.3g} -> {score.end:.3g} at lr {score.lr:g}"
    if not score.solved:
        raise BrokenPromiseError(
            f"{said} at best; optimizers that work get below {gym.TARGET * score.start:.3g} at"
            f" one of the lr from {min(gym.FACTORS):g} to {max(gym.FACTORS):g} times the YAML's"
            f" {params['lr']:g}."
        )
    return said


def place(error: Exception, optimizer: str) -> str:
    """An error in one line, with the last line of the optimizer's own file on the way to it."""
    return f"{_cause(error, optimizer)}: {_words(error)}"


def _cause(error: Exception, optimizer: str) -> str:
    file = find_part("optim", optimizer)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename) == file] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}: {type(error).__name__}"


def _words(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else traceback.extract_tb(error.__traceback__)[-1].line or ""
