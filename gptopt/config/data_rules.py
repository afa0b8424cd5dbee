"""The rules of the node ``data``: a corpus, the sources of a mixture, further evaluation sets.

A source is a mapping with ``format`` and the keys of that format, wherever it stands:

    data                    the corpus itself
    data.sources.<label>    of a mixture; beside its keys ``weight``, and if wanted max_tokens
    data.eval.<label>       evaluated as val/<label>/loss
    data.test.<label>       evaluated once, at the end, as test/<label>/loss
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from gptopt.config import resolve, schema
from gptopt.config.checker import Checker
from gptopt.config.problems import nearest, show
from gptopt.config.types import Positive, PositiveInt

BYTES = 256
"""Vocabulary of the corpora that are read byte by byte."""
OWN_VOCABULARY = ("copy", "jsonl", "markov", "modular", "parquet", "pipeline", "recall", "text")
"""Formats whose ids are known when the corpus is opened, and checked then."""
MIXTURE = "mixture"
STAGES = resolve.PACKAGE / "data" / "stages.py"
"""Whose public functions are the stages of ``data.stages``, in this order."""
SETS = ("eval", "test")
LABEL = re.compile(r"[A-Za-z0-9_-]+")
HOLDS_OUT = ("val", "val_split", "val_every")
"""Keys by which a format holds tokens out."""
FURTHER: dict[str, dict[str, Any]] = {
    "sources": {"name": str, "weight": Positive | None, "max_tokens": PositiveInt | None},
    "eval": {"name": str},
    "test": {"name": str},
}
"""Keys that a source may have beside those of its format, by where it stands."""

LONGEST = 1 << 16
"""Samples of a pattern at most: weights with more digits than a share needs are refused."""


def whole_shares(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in proportion to ``weights``, read as decimal fractions.

    Raises:
        ValueError: They add up to more than ``LONGEST``.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    unit = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * unit) for weight in exact]
    divisor = math.gcd(*whole)
    shares = [number // divisor for number in whole]
    if sum(shares) > LONGEST:
        raise ValueError(
            f"weights {', '.join(f'{weight:g}' for weight in weights)} are exact only in a pattern"
            f" of {sum(shares):,} windows; at most {LONGEST:,}. Give them fewer digits."
        )
    return shares


def data_node(checker: Checker) -> dict[str, Any]:
    """``data`` with every value of its type; problems go to ``checker``."""
    data = checker.get("data")
    if not isinstance(data, Mapping):
        return {}
    own = _format_keys(checker, "data", data)
    if own is None:
        return {}
    common = typing.get_type_hints(schema.DataCommon, include_extras=True)
    checked = checker.keys("data", data, common | own)
    if isinstance(checked.get("ignore"), schema.Ignore):
        checked["ignore"] = dataclasses.asdict(checked["ignore"])
    for path, source in _inner_sources(data):
        _, kind, label = path.split(".", 2)
        if not LABEL.fullmatch(label):
            message = f"{path}: a label takes letters, digits, - and _; it names a metric."
            checker.report(path, message)
        elif not isinstance(source, Mapping):
            checker.value(path, source, dict)
        elif source.get("format") == MIXTURE:
            checker.report(f"{path}.format", f"{path}.format=mixture: only data itself is one.")
        elif (own := _format_keys(checker, path, source)) is not None:
            further = {key: kind for key, kind in FURTHER[kind].items() if key in source}
            checked[kind] = dict(checked.get(kind) or {})
            checked[kind][label] = checker.keys(path, source, {"format": str} | own | further)
    return checked


def _format_keys(checker: Checker, path: str, source: Mapping[str, Any]) -> dict[str, Any] | None:
    keys = checker.part("data.formats", f"{path}.format", source.get("format"))
    return keys and {key: kind for key, kind in keys.items() if key != "data_root"}


def _stages(checker: Checker, path: str, stages: Any) -> None:
    """The entries of ``stages``, each with the keys of its function, and their order."""
    if not isinstance(stages, list) or not all(isinstance(stage, Mapping) for stage in stages):
        return  # its type is wrong, which has been said
    known = list(resolve.functions(STAGES))
    names = [stage.get("name") for stage in stages]
    for number, (name, stage) in enumerate(zip(names, stages, strict=True)):
        place = f"{path}[{number}]"
        if name not in known:
            wrong = f"{place}.name={show(name)}: no such stage.{nearest(str(name), known)}"
            checker.report(path, f"{wrong} There are: {', '.join(known)}.")
            return
        checker.keys(place, stage, {"name": str} | resolve.keys_of(STAGES, name))
    if names != [name for name in known if name in names] or known[0] not in names:
        checker.report(
            path,
            f"{path}: {', '.join(map(str, names)) or 'none'}. Stages come in the order"
            f" {', '.join(known)}, each once at most, and {known[0]} has to be there.",
        )


def _inner_sources(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind in ("sources", *SETS):
        inner = data.get(kind)
        if isinstance(inner, Mapping) and (kind in SETS or data["format"] == MIXTURE):
            yield from ((f"data.{kind}.{label}", source) for label, source in inner.items())


def _is_trained_on(path: str) -> bool:
    return path == "data" or path.startswith("data.sources.")


def cross_data(checker: Checker) -> None:
    """Rules between the keys of ``data``, and between them and the model."""
    data = checker.get("data")
    for path, source in (("data", data), *_inner_sources(data)):
        _cross_source(checker, path, source)
        held_out = [key for key in HOLDS_OUT if source.get(key) is not None]
        if data["splits"] is not None and held_out and _is_trained_on(path):
            key = f"{path}.{held_out[0]}"
            checker.report(
                key,
                f"{key}={show(source[held_out[0]])} and data.splits={data['splits']} both say what"
                " is held out; set one of them to null.",
            )
    if data["format"] == MIXTURE:
        _cross_mixture(checker, data)
    for label in set(data["eval"]) & set(data.get("sources", ())):
        message = f"data.eval.{label}: the mixture has a source of that label; give it another."
        checker.report(f"data.eval.{label}", message)
    known, mark = checker.get("model.config.vocab_size"), data["end_of_text"]
    if known and mark is not None and mark >= known:
        checker.report(
            "data.end_of_text",
            f"data.end_of_text={mark}: model.config.vocab_size={known} takes ids below {known}.",
        )
    if data["splits"] is not None and abs(sum(data["splits"]) - 1) > 1e-6:
        checker.report(
            "data.splits",
            f"data.splits={data['splits']}: training, validation and test share add up to"
            f" {sum(data['splits']):g}, not 1.",
        )
    limits = data["ignore"]["token_range"]
    if limits and None not in limits and limits[0] > limits[1]:
        checker.report(
            "data.ignore.token_range",
            f"data.ignore.token_range={limits}: the lowest id comes first, the highest second.",
        )


def _cross_mixture(checker: Checker, data: Mapping[str, Any]) -> None:
    if not data["sources"]:
        message = "data.sources={}: a mixture takes at least one source, label: {format: ...}."
        checker.report("data.sources", message)
    if data["max_tokens"] is not None:
        message = "data.max_tokens: of a mixture, set max_tokens of the sources it is meant for."
        checker.report("data.max_tokens", message)
    weights = [source.get("weight") for source in data["sources"].values()]
    try:
        whole_shares([weight for weight in weights if weight])
    except ValueError as error:
        checker.report("data.sources", f"data.sources: {error}")
    for label, source in data["sources"].items():
        path, weight = f"data.sources.{label}.weight", source.get("weight")
        if data["mix"] == "weighted" and weight is None:
            checker.report(path, f"{path} is missing: data.mix=weighted reads by weight.")
        if data["mix"] == "sequential" and weight is not None:
            message = (
                f"{path}={show(weight)}: data.mix=sequential reads every source once an epoch"
                " and takes no weights; leave it out."
            )
            checker.report(path, message)


def _cross_source(checker: Checker, path: str, source: Mapping[str, Any]) -> None:
    if "stages" in source:
        _stages(checker, f"{path}.stages", source["stages"])
    known = checker.get("model.config.vocab_size")
    needed = source.get("vocab_size") or (0 if source["format"] in OWN_VOCABULARY else BYTES)
    if known and source["format"] != MIXTURE and needed > known:
        name = f"data={source['name']}" if path == "data" else path
        checker.report(
            "model.config.vocab_size",
            f"model.config.vocab_size={known}: {name} has token ids up to"
            f" {needed - 1}; it takes at least {needed}.",
        )
    if source.get("classes", 0) > source.get("words", math.inf):
        checker.report(
            f"{path}.classes",
            f"{path}.classes={source['classes']} are more than {path}.words={source['words']}.",
        )
    if (source.get("val_every") or 2) < 2:
        checker.report(
            f"{path}.val_every",
            f"{path}.val_every={source['val_every']} would hold out every file; it takes at"
            " least 2.",
        )
    held_out, tokens = source.get("val_split"), source.get("tokens")
    if isinstance(held_out, int) and tokens and held_out >= tokens:
        checker.report(
            f"{path}.val_split",
            f"{path}.val_split={held_out} would hold out all of the {path}.tokens={tokens}.",
        )
