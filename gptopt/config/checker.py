"""What holds one raw configuration against its types and collects what is wrong with it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gptopt.config import resolve
from gptopt.config.problems import Problem, nearest, show, unknown_key
from gptopt.config.values import UNRESOLVED, MismatchError, coerce, describe, hint


class Checker:
    """Collects the problems of one raw config while it turns it into a ``schema.Config``."""

    def __init__(
        self, raw: Mapping[str, Any], where: Callable[[str], str], known: Iterable[Problem]
    ) -> None:
        self.raw = raw
        self.where = where
        self.problems = list(known)
        self.kinds: dict[str, Any] = {}  # dotted key -> the type that its value was held against

    def report(self, key: str, message: str) -> None:
        """Adds a problem about ``key``, unless there is one already."""
        if key not in {problem.key for problem in self.problems}:
            self.problems.append(Problem(key, message, self.where(key)))

    def get(self, path: str) -> Any:
        """The raw value at a dotted path, or None."""
        node: Any = self.raw
        for part in path.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return None
            node = node[part]
        return node

    def keys(self, path: str, value: Any, expected: Mapping[str, Any]) -> dict:
        """``value`` as a mapping with exactly the keys of ``expected``, each of its type."""
        if not isinstance(value, Mapping):
            self.value(path, value, dict)
            return {}
        checked = {}
        for key in value:
            if key not in expected:
                problem = unknown_key(path, str(key), expected, value[key])
                self.report(problem.key, problem.message)
        for key, kind in expected.items():
            full = f"{path}.{key}" if path else key
            if key not in value:
                self.report(full, f"{full} is missing: it takes {describe(kind)}.")
            elif dataclasses.is_dataclass(kind):
                checked[key] = self.node(full, value[key], kind)
            else:
                checked[key] = self.value(full, value[key], kind)
        return checked

    def value(self, path: str, value: Any, expected: Any) -> Any:
        """One value of type ``expected``."""
        self.kinds[path] = expected
        try:
            return coerce(value, expected)
        except MismatchError as error:
            self.report(path, f"{path}={show(value)}: it takes {error}.{hint(value, expected)}")
            return value

    def node(self, path: str, value: Any, kind: Any) -> Any:
        """A fixed node: a dataclass of the schema, or None with problems."""
        if value is UNRESOLVED:
            return None
        hints = typing.get_type_hints(kind, include_extras=True)
        before = len(self.problems)
        checked = self.keys(path, value, hints)
        return kind(**checked) if len(self.problems) == before else None

    def part(self, kind: resolve.Kind, path: str, name: Any) -> dict[str, Any] | None:
        """Key -> type of the file that ``name`` stands for, or None with a problem."""
        if not isinstance(name, str):
            self.value(path, name, str)
            return None
        file = resolve.find_part(kind, name)
        if file is None:
            names = resolve.part_names(kind)
            wanted = f"gptopt/{kind.replace('.', '/')}/{name.replace('-', '_')}.py"
            self.report(
                path,
                f"{path}={show(name)}: there is no {wanted} (yet).{nearest(name, names)}"
                f" There are: {', '.join(names)}.",
            )
            return None
        library = resolve.library_of(name)
        if library and not resolve.is_installed(library):
            self.report(
                path,
                f"{path}={show(name)}: {library} is not installed;"
                " pip install 'gptopt[optimizers]' brings it.",
            )
            return None
        return resolve.keys_of(file)
