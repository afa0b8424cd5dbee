"""What is said about a configuration that cannot be run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gptopt.state import ExitCode

TRACKERS = "logging.trackers"
SECRET = re.compile(r"api_?key|password|secret|(access|auth|hf|hub|bearer)_?token", re.IGNORECASE)
SECRET_VARIABLE = re.compile(
    r"(^|_)(token|pass|passwd|passphrase|pat|credentials?)$|(private|access)_?key", re.IGNORECASE
)
"""Further names of environment variables that services take secrets from."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration."""

    key: str
    message: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class ConfigError(ValueError):
    """A configuration that cannot be run, with all its problems; ends a process with 2."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(dict.fromkeys(problems))
        count = len(self.problems)
        title = f"{count} problem{'s' * (count > 1)} in the configuration; nothing was started."
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))


def nearest(given: str, choices: Iterable[str]) -> str:
    """`` Did you mean 'muon'?`` or, when nothing is close, an empty string; case is no matter."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(given.lower(), list(folded), n=1, cutoff=0.6)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def unknown_key(
    path: str, key: str, choices: Iterable[str], value: Any = ..., alike: Iterable[str] = ()
) -> Problem:
    """The problem of a key that is not among ``choices`` at ``path``.

    Args:
        path: The deepest node on the way to it that exists.
        key: What follows.
        choices: What ``path`` takes.
        value: What was given for it, if anything was.
        alike: Full keys elsewhere that end in the same word.
    """
    full = f"{path}.{key}" if path else key
    if SECRET.search(key):
        return secret(full)
    shown = full if value is ... else f"{full}={show(value)}"
    known = list(choices)
    hint = "".join(f" Did you mean {other!r}?" for other in alike) or nearest(key, known)
    add = "+logging=NAME adds a tracker" if path == TRACKERS else f"+{full}=... adds a key to it"
    taken = f"takes: {', '.join(known)}" if known else f"is empty; {add}"
    return Problem(full, f"{shown}: there is no such key.{hint} {path or 'The config'} {taken}.")


def secret(key: str) -> Problem:
    """The problem of a key that looks like a secret; its value is never shown."""
    return Problem(
        key,
        f"{key}: secrets do not belong in a config, which is saved with every run; set the"
        " environment variable of the service instead.",
    )


def show(value: Any) -> str:
    """A value as one would type it, cut to a line."""
    text = {None: "null", True: "true", False: "false"}.get(value) if _is_atom(value) else None
    text = text or (repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_atom(value: Any) -> bool:
    return value is None or isinstance(value, bool)
