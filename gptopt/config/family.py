"""Many configurations that take the same keys: one is composed, the others differ in leaves.

What is worked out from a configuration (whether it keeps a rule, how many tokens it trains on)
is worked out once for each set of the values that it reads. Which these are is not declared
anywhere: it is seen while it is worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptopt.config import identity
from gptopt.config.checker import Checker
from gptopt.config.checks import CROSS_RULES, NOT_MEANT, apply, check_nodes
from gptopt.config.compose import Draft
from gptopt.config.interpolations import RUN_HASH, EntangledError, Follower, Piece, followers
from gptopt.config.plain import failure
from gptopt.config.problems import Problem
from gptopt.config.values import UNRESOLVED

STRUCTURE = ("name", "family", "format")
"""Names of such leaves as say which other keys there are."""


def is_structural(path: str) -> bool:
    """Whether a leaf may say which other keys there are."""
    return path.rpartition(".")[2] in STRUCTURE


class Leaf(NamedTuple):
    """A plain value. ``token`` stands for it where values are compared: 1, 1.0, true differ."""

    value: Any
    token: str

    @classmethod
    def of(cls, value: Any) -> Leaf:
        """The leaf with this value."""
        return cls(value, repr(value))


Leaves = dict[str, Leaf]
"""Dotted path -> value, of all leaves in which the members of a family differ."""
NOWHERE = Leaf.of(UNRESOLVED)


class Seen(Mapping[str, Any]):
    """A configuration, as nodes in nodes, that notes which of its ``leaves`` are looked at."""

    def __init__(
        self, node: Mapping[str, Any], leaves: Leaves, seen: set[str], path: str = ""
    ) -> None:
        self._node, self._leaves, self._seen, self._path = node, leaves, seen, path

    def __getitem__(self, key: str) -> Any:
        value, path = self._node[key], f"{self._path}{key}"
        if path in self._leaves:
            self._seen.add(path)
            return self._leaves[path].value
        if isinstance(value, dict):
            return Seen(value, self._leaves, self._seen, f"{path}.")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._node)

    def __len__(self) -> int:
        return len(self._node)


class Member(NamedTuple):
    """One configuration of a family; it has no ``run_id`` where there are problems."""

    leaves: Leaves
    run_id: str
    problems: list[Problem]


class Family:
    """The configurations that differ from a composed one in the values of some leaves.

    Args:
        draft: The composed one.
        changing: The leaves whose values are given for each member.

    Raises:
        EntangledError: They are no such leaves, or it cannot be told what follows from them.
    """

    def __init__(self, draft: Draft, changing: Collection[str]) -> None:
        self._tree, self._where = draft.tree, draft.where
        self._raw, unresolved = draft.values()
        self._changing = [path for path in changing if self._is_leaf(path, draft)]
        if unresolved and self._changing:
            raise EntangledError("a value cannot be worked out")
        following = followers(draft.tree, self._changing) if self._changing else []
        self._late = [leaf for leaf in following if leaf.is_late]
        self._early = [leaf for leaf in following if not leaf.is_late]
        moving = [*self._changing, *(leaf.path for leaf in following)]
        if any(map(is_structural, moving)):
            raise EntangledError("other keys follow from a value that changes")
        self._told = known = [*draft.problems, *unresolved]
        checker = Checker(self._raw, draft.where, known)
        check_nodes(checker)
        self._kinds = {path: checker.kinds[path] for path in moving if path in checker.kinds}
        found = checker.problems[len(known) :]
        self.problems = known + [p for p in found if p.key not in self._kinds]
        """Those of every member, whatever its values are."""
        self._pattern = None if self.problems else identity.Pattern(self._raw, moving)
        self._rules = [self._told_by(rule) for rule in CROSS_RULES]
        self._standing: Leaves = {}  # what was last put into the tree
        self._known: dict[Any, dict[tuple[str, ...], dict[tuple[str, ...], Any]]] = {}
        self._texts: dict[str, str] = {}

    def member(self, given: Leaves) -> Member:
        """The one whose changing leaves have the values ``given``."""
        leaves = {path: given[path] for path in self._changing}
        problems = list(self.problems)
        for follower in self._early:
            problems += self._follow_up(follower, leaves)
        run_id = ""
        if self._pattern is not None and not problems:
            run_id = self._pattern.run_id([self._text(leaves[p]) for p in self._pattern.leaves])
        for follower in self._late:
            if run_id:
                problems += self._follow_up(follower, leaves, run_id[: identity.DIGITS])
            else:
                leaves[follower.path] = NOWHERE
        for path, kind in self._kinds.items():
            problems += self._mistyped(path, kind, leaves[path])
        for rule in self._rules:
            found = self.work_out(rule, leaves)
            if isinstance(found, Exception):  # it met a value that is reported already
                if not problems:
                    raise found
            else:
                problems += found
        first = {problem.key: problem for problem in reversed(problems)}
        kept = [p for p in problems if first[p.key] is p or p in self._told]
        return Member(leaves, run_id, kept)

    def work_out(self, function: Callable[[Mapping[str, Any]], Any], leaves: Leaves) -> Any:
        """``function`` of the plain nodes of the member with these ``leaves``.

        It is called once for each set of values that it reads, and must depend on nothing else.
        """
        known = self._known.setdefault(function, {})
        for reads, results in known.items():
            tokens = tuple([leaves[path].token for path in reads])
            if tokens in results:
                return results[tokens]
        seen: set[str] = set()
        result = function(Seen(self._raw, leaves, seen))
        reads = tuple(sorted(seen))
        known.setdefault(reads, {})[tuple([leaves[path].token for path in reads])] = result
        return result

    def _is_leaf(self, path: str, draft: Draft) -> bool:
        """Whether ``path`` is a leaf of the tree; one that was refused is not looked at."""
        if path.split(".")[0] in draft.unknown or any(p.key == path for p in draft.problems):
            return False
        *parents, last = path.split(".")
        node: Any = self._raw
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            return True
        raise EntangledError(f"{path} is a part of a list")

    def _told_by(
        self, rule: Callable[[Checker], None]
    ) -> Callable[[Mapping[str, Any]], list[Problem] | Exception]:
        def told(raw: Mapping[str, Any]) -> list[Problem] | Exception:
            checker = Checker(raw, self._where, [])
            try:
                apply(rule, checker)
            except NOT_MEANT as error:
                return error
            return checker.problems

        return told

    def _mistyped(self, path: str, kind: Any, leaf: Leaf) -> list[Problem]:
        known = self._known.setdefault(path, {}).setdefault((), {})
        if (leaf.token,) not in known:
            checker = Checker(self._raw, self._where, [])
            checker.value(path, leaf.value, kind)
            known[(leaf.token,)] = checker.problems
        return known[(leaf.token,)]

    def _follow_up(self, follower: Follower, leaves: Leaves, digits: str = "") -> list[Problem]:
        """Puts the value that a follower has now into ``leaves``; the problem where it has none."""
        values = []
        for piece in follower.pieces:
            if piece.syntax is None or piece.is_identity:
                values.append(piece.text or digits)
                continue
            known = self._known.setdefault(piece, {}).setdefault((), {})
            tokens = tuple([leaves[path].token for path in piece.reads if path in leaves])
            tokens += (digits,) if RUN_HASH in piece.reads else ()
            if tokens not in known:
                known[tokens] = self._resolved(follower, piece, leaves)
            if isinstance(known[tokens], Problem):
                leaves[follower.path] = NOWHERE
                return [known[tokens]]
            values.append(known[tokens])
        value = values[0] if len(values) == 1 else "".join(map(str, values))
        leaves[follower.path] = Leaf.of(value)
        return []

    def _resolved(self, follower: Follower, piece: Piece, leaves: Leaves) -> Any:
        """The value of a piece, or the problem that it has none."""
        for path in self._changing:
            if self._standing.get(path) is not leaves[path]:
                OmegaConf.update(self._tree, path, leaves[path].value, merge=False, force_add=True)
                self._standing[path] = leaves[path]
        try:
            return follower.resolve(piece)
        except OmegaConfBaseException as error:
            return failure(follower.path, follower.node, error, self._where)

    def _text(self, leaf: Leaf) -> str:
        if leaf.token not in self._texts:
            self._texts[leaf.token] = identity.text_of(leaf.value)
        return self._texts[leaf.token]
