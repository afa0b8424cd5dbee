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
from gptopt.optim.checking.contract import CHECKS, BrokenPromiseError, NotApplicableError, Params

Outcome = Literal["kept", "broken", "not applicable"]


@dataclass(frozen=True)
class Verdict:
    """What became of one check; the message tells what to change, or what was found."""

    check: str
    outcome: Outcome
    message: str = ""


def verdicts(params: Params) -> Iterator[Verdict]:
    """One verdict after another, as the checks are made; an error of the optimizer is one too.

    Args:
        params: The node optimizer_params of its YAML file.
    """
    for name, check in checks(params).items():
        yield judge(name, check, params["name"])


def checks(params: Params) -> dict[str, Callable[[], str | None]]:
    """Every check by its name for people."""
    named: dict[str, Callable[[], str | None]] = {
        check.__name__.replace("_", " "): partial(check, params) for check in CHECKS
    }
    return named | {f"solves: {make.name}": partial(_solve, make, params) for make in gym.PROBLEMS}


def judge(name: str, check: Callable[[], str | None], optimizer: str) -> Verdict:
    """Makes one check of the optimizer of this name."""
    try:
        return Verdict(name, "kept", check() or "")
    except NotApplicableError as reason:
        return Verdict(name, "not applicable", str(reason))
    except BrokenPromiseError as error:
        return Verdict(name, "broken", str(error))
    except Exception as error:  # of the optimizer, whatever it is
        return Verdict(name, "broken", place(error, optimizer))


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
    file = find_part("optim", optimizer)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename) == file] or frames
    said = str(error).strip().splitlines()
    return (
        f"{own[-1].filename}, line {own[-1].lineno}: {type(error).__name__}:"
        f" {said[0] if said else own[-1].line}"
    )
