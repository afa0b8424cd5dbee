"""Which values of a configuration follow from others, and their new values when those change.

    aux.lr: ${..lr}                                    follows from optimizer.optimizer_params.lr
    run_name: lr-${num:${optimizer.optimizer_params.lr}}-${run_hash:}     from it and all the rest

OmegaConf resolves them. What is added here is to know what a text reads, so that it is resolved
once for each set of values that it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser as Grammar
from omegaconf.grammar_parser import parse

OF_ARGUMENTS = ("eval", "div", "first", "num", "cpu_count", "device_count", "oc.env")
"""Resolvers that give the same for the same arguments, as long as this process lives."""
RUN_HASH = "run_hash"
"""The resolver that reads nearly all values; it stands for them among what a text reads."""


class EntangledError(ValueError):
    """What the values follow from cannot be told from the text of their interpolations."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a text: one interpolation, with the dotted paths that it reads.

    Attributes:
        syntax: What OmegaConf's parser makes of it; None for letters that stand for themselves.
        text: Those letters.
        reads: Dotted paths, ``RUN_HASH`` among them.
        is_identity: Whether it is ``RUN_HASH`` and nothing else.
    """

    syntax: Any
    text: str = ""
    reads: tuple[str, ...] = ()
    is_identity: bool = False


@dataclass(eq=False)
class Follower:
    """A leaf whose value is worked out from other leaves.

    Attributes:
        path: Its dotted path.
        pieces: Its text in order.
        node: Where it stands in the tree.
        is_late: Whether it follows from ``RUN_HASH``, if only by way of others.
    """

    path: str
    pieces: list[Piece]
    node: Node
    is_late: bool = False

    @property
    def reads(self) -> set[str]:
        """All that its text reads."""
        return {path for piece in self.pieces for path in piece.reads}

    def resolve(self, piece: Piece) -> Any:
        """The plain value of a piece, as the tree stands.

        Raises:
            OmegaConfBaseException: It has none.
        """
        parent = self.node._get_parent()
        assert isinstance(parent, DictConfig)
        value = parent.resolve_parse_tree(piece.syntax, node=self.node, key=self.node._key())
        if isinstance(value, ListConfig):
            return OmegaConf.to_container(value, resolve=True)
        if isinstance(value, Node):
            return value._value()
        return value


def followers(tree: DictConfig, changing: Collection[str]) -> list[Follower]:
    """The leaves of ``tree`` that follow from those at ``changing``, each after what it reads.

    Those that read ``RUN_HASH`` follow, whatever changes, and come last.

    Raises:
        EntangledError: It takes more than reading the texts to tell.
    """
    found = [Follower(path, _pieces(node, path), node) for path, node in _interpolations(tree)]
    moved: set[str] = {*changing, RUN_HASH}
    ordered: list[Follower] = []
    while ready := [leaf for leaf in found if leaf not in ordered and leaf.reads & moved]:
        ordered += ready
        moved |= {leaf.path for leaf in ready}
    for leaf in ordered:
        for path in leaf.reads - moved:
            if any(other.startswith(f"{path}.") for other in moved):
                raise EntangledError(f"{leaf.path} reads the node {path}")
    return _sorted(ordered)


def _sorted(leaves: list[Follower]) -> list[Follower]:
    """Each after those that it reads; there are no circles, or the first had no values."""
    left, done = list(leaves), list[Follower]()
    while left:
        waiting = {leaf.path for leaf in left}
        for leaf in [leaf for leaf in left if not leaf.reads & waiting]:
            leaf.is_late = RUN_HASH in leaf.reads or any(
                before.is_late for before in done if before.path in leaf.reads
            )
            done.append(leaf)
            left.remove(leaf)
    return done


def _interpolations(node: DictConfig, path: str = "") -> Iterator[tuple[str, Node]]:
    for key in node:
        child = node._get_node(key)
        assert isinstance(child, Node)
        full = f"{path}.{key!s}" if path else str(key)
        if isinstance(child, DictConfig | ListConfig) and child._is_interpolation():
            raise EntangledError(f"{full} is a node that is an interpolation")
        if isinstance(child, DictConfig):
            yield from _interpolations(child, full)
        elif isinstance(child, ListConfig):
            if "${" in str(OmegaConf.to_container(child, resolve=False)):
                raise EntangledError(f"{full} holds an interpolation")
        elif child._is_interpolation():
            yield full, child


def _pieces(node: Node, path: str) -> list[Piece]:
    text = str(node._value())
    if "\\" in text:
        raise EntangledError(f"{path} has escapes")
    (content, _end) = parse(text).getChildren()
    pieces = []
    for part in content.getChildren():
        part_text = text[part.start.start : part.stop.stop + 1] if _is(part) else part.getText()
        if _is(part):
            reads = tuple(sorted(_reads(part, path)))
            is_identity = part_text == f"${{{RUN_HASH}:}}"
            pieces.append(Piece(parse(part_text), reads=reads, is_identity=is_identity))
        else:
            pieces.append(Piece(None, part_text))
    return pieces


def _is(part: Any) -> bool:
    return isinstance(part, Grammar.InterpolationContext)


def _reads(syntax: Any, path: str) -> set[str]:
    if isinstance(syntax, Grammar.InterpolationNodeContext):
        return {_absolute(syntax, path)}
    found: set[str] = set()
    if isinstance(syntax, Grammar.InterpolationResolverContext):
        name = syntax.getChild(1).getText()
        if name == RUN_HASH:
            return {RUN_HASH}
        if name not in OF_ARGUMENTS:
            raise EntangledError(f"{path} asks the resolver {name}")
    for child in getattr(syntax, "children", None) or []:
        found |= _reads(child, path)
    return found


def _absolute(syntax: Any, path: str) -> str:
    """The dotted path of ``${..lr}`` in the leaf at ``path``: one dot stays in its node."""
    key = syntax.getText()[2:-1]
    if "$" in key or "[" in key:
        raise EntangledError(f"{path} works out the key that it reads")
    name = key.lstrip(".")
    up = len(key) - len(name)
    parents = path.split(".")[:-up] if up else []
    return ".".join([*parents, name])
