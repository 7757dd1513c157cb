"""Annotations of matching policies go in, one merged value an obligation comes out, with the policies it came from.

The only place for the obligation catalogue: names, values, merge laws, the stage that carries each out, and whether
this release does. Every law keeps the strictest of what it is given: one more matching policy never loosens anything.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from sluicegate.enforcer.detect import CLASSES
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.redact import STRICTNESS, SUPPORTED_OPERATORS
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Obligation
from sluicegate.schemas.ids import PolicyId

Operators = Mapping[str, str]
Value = int | Decimal | str | frozenset[str] | Operators
"""A limit, a word, a set of names or texts, or an operator for each redaction class."""

REASON: Final = "reason"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_DECIMAL: Final = re.compile(r"[0-9](?:\.[0-9]{1,6})?")
STOPS_MAX: Final = 8
STOP_CHARACTERS_MAX: Final = 256


class BadValue(ValueError):
    """An annotation value that its obligation does not take; the text says what to write instead."""


class Law(StrEnum):
    """How the values of all matching policies become one."""

    MIN = "min"
    STRICTEST = "strictest"
    EQUAL = "equal, else deny"
    UNION = "union"
    OPERATORS = "union of classes, strictest operator a class"
    MEET = "meet; empty: deny"
    ALL_MIN = "all roles needed, min time"
    SHOWN = "none: all are shown, sorted by policy id; forbids only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the catalogue. `levels` runs from loose to strict; `most` bounds a number, which is a decimal one
    where `decimal` and never 0 where `positive`.
    """

    name: str
    value: str
    law: Law
    stage: str
    supported: bool = False
    levels: tuple[str, ...] = ()
    most: int = 0
    decimal: bool = False
    positive: bool = False

    def row(self) -> dict[str, object]:
        """The same as a bundle's `obligations.yaml` says it: `value`, `merge`, `stage`, and `levels` or `most`."""
        row: dict[str, object] = {"value": self.value, "merge": self.law.value, "stage": self.stage}
        if self.levels:
            row["levels"] = list(self.levels)
        if self.most:
            row["most"] = self.most
        return row

    def row_text(self) -> str:
        """The row as one line of YAML to copy."""
        return f"{self.name}: {json.dumps(self.row())}"


_SYSTEM: Final = ("demote", "drop", "refuse")
_WITHHELD: Final = ("label", "drop", "refuse")
_NUMBERS: Final = ("free", "from_context")
_OVER_LIMIT: Final = ("clamp", "refuse")
_BOUND: Final = "upper bound, decimal"
_SAMPLER: Final = "enforcer, runner"
_ENTRIES: Final = (
    Entry(name="max_tokens", value="tokens", law=Law.MIN, stage=_SAMPLER, supported=True, most=32768),
    Entry(name="max_prompt_tokens", value="tokens", law=Law.MIN, stage="runner", supported=True, most=32768),
    Entry(name="temperature", value=_BOUND, law=Law.MIN, stage=_SAMPLER, supported=True, most=2, decimal=True),
    Entry(name="top_p", value=_BOUND, law=Law.MIN, stage=_SAMPLER, supported=True, most=1, decimal=True,
          positive=True),
    Entry(name="top_k", value="upper bound, 1 to 64", law=Law.MIN, stage=_SAMPLER, supported=True, most=64),
    Entry(name="seed", value="order", law=Law.STRICTEST, stage="runner", supported=True, levels=("client", "fixed")),
    Entry(name="stream", value="order", law=Law.STRICTEST, stage="enforcer", supported=True, levels=("yes", "no")),
    Entry(name="over_limit", value="order", law=Law.STRICTEST, stage="enforcer", supported=True, levels=_OVER_LIMIT),
    Entry(name="stop", value="texts", law=Law.UNION, stage=_SAMPLER, supported=True),
    Entry(name="system", value="template", law=Law.EQUAL, stage="enforcer", supported=True),
    Entry(name="client_system", value="order", law=Law.STRICTEST, stage="enforcer", supported=True, levels=_SYSTEM),
    Entry(name="output", value="grammar", law=Law.EQUAL, stage="runner", supported=True),
    Entry(name="ban", value="term lists", law=Law.UNION, stage="runner, redactor"),
    Entry(name="alias", value="term lists", law=Law.UNION, stage="enforcer", supported=True),
    Entry(name="numbers", value="order", law=Law.STRICTEST, stage="redactor", supported=True, levels=_NUMBERS),
    Entry(name="withheld", value="order", law=Law.STRICTEST, stage="enforcer", supported=True, levels=_WITHHELD),
    Entry(name="redact", value="CLASS=how", law=Law.OPERATORS, stage="redactor", supported=True, levels=STRICTNESS),
    Entry(name="redact_prompt", value="CLASS=how", law=Law.OPERATORS, stage="enforcer", supported=True,
          levels=STRICTNESS),
    Entry(name="mask_output", value="JSON paths", law=Law.UNION, stage="redactor"),
    Entry(name="approval", value="role, ttl", law=Law.ALL_MIN, stage="enforcer"),
    Entry(name="charge", value="budgets", law=Law.UNION, stage="enforcer"),
    Entry(name="provider", value="places", law=Law.MEET, stage="runner"),
    Entry(name="keep_raw", value="duration", law=Law.MIN, stage="sink"),
    Entry(name="notice", value="text ids", law=Law.UNION, stage="redactor"),
    Entry(name=REASON, value="text for the requester", law=Law.SHOWN, stage="decision", supported=True),
)  # fmt: skip
CATALOGUE: Final[Mapping[str, Entry]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
MERGED: Final = tuple(sorted(entry.name for entry in _ENTRIES if entry.supported and entry.law is not Law.SHOWN))


@lru_cache(maxsize=1024)
def parse(name: str, raw: str) -> Value:
    """Reads the annotation value `raw` of the obligation `name`, strictly.

    Raises:
        BadValue: the value is not what the catalogue says for `name`.
        KeyError: `name` is not in the catalogue, or no stage of this release carries it out.
    """
    entry = CATALOGUE[name]
    if name not in MERGED:
        raise KeyError(name)
    match entry.law:
        case Law.MIN:
            if entry.decimal:
                return _bound(entry, raw)
            if not _NUMBER.fullmatch(raw) or int(raw) > entry.most:
                raise BadValue(f"`{raw}` is no whole number from 1 to {entry.most}")
            return int(raw)
        case Law.STRICTEST:
            if raw not in entry.levels:
                raise BadValue(f"`{raw}` is none of {', '.join(entry.levels)}")
            return raw
        case Law.EQUAL:
            return _name(raw)
        case Law.UNION if name == "stop":
            return _texts(raw)
        case Law.UNION:
            names = [_name(part.strip()) for part in raw.split(",")]
            if len(set(names)) < len(names):
                raise BadValue(f"`{raw}` names one thing twice; name it once")
            return frozenset(names)
        case _:
            return _operators(raw)


def _name(raw: str) -> str:
    if not _NAME.fullmatch(raw):
        raise BadValue(f"`{raw}` is no name; write letters, digits, `-`, `_` and `.`")
    return raw


def _bound(entry: Entry, raw: str) -> Decimal:
    """A decimal of at most six places, from 0 (above it where `positive`) to `most`."""
    value = Decimal(raw) if _DECIMAL.fullmatch(raw) else None
    if value is None or value > entry.most or (entry.positive and not value):
        least = "above 0, up to" if entry.positive else "0 to"
        raise BadValue(f"`{raw}` is no decimal number {least} {entry.most}; write it as `0.3`")
    return value.normalize()


def _texts(raw: str) -> frozenset[str]:
    """One text as it stands, or a JSON list of texts, for several or for one with escapes."""
    texts: object = [raw]
    if raw.lstrip().startswith("["):
        try:
            texts = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadValue(f"`{raw}` is no JSON list of texts; correct it") from None
    if not isinstance(texts, list) or not 0 < len(texts) <= STOPS_MAX:
        raise BadValue(f"`{raw}` must hold 1 to {STOPS_MAX} texts")
    for text in texts:
        if not isinstance(text, str) or not 0 < len(text) <= STOP_CHARACTERS_MAX or not _is_text(text):
            raise BadValue(f"`{raw}` must hold texts of 1 to {STOP_CHARACTERS_MAX} characters")
    if len(set(texts)) < len(texts):
        raise BadValue(f"`{raw}` names one thing twice; name it once")
    return frozenset(texts)


def _is_text(text: str) -> bool:
    """Whether `text` has a form in UTF-8: a JSON escape can write half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _operators(raw: str) -> Operators:
    found: dict[str, str] = {}
    for part in raw.split(","):
        class_, equals, operator = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise BadValue(f"`{part.strip()}` is not of the form `CLASS=operator`")
        if class_ not in CLASSES:
            raise BadValue(f"redaction class `{class_}` is unknown; use one of {', '.join(sorted(CLASSES))}")
        if operator not in SUPPORTED_OPERATORS:
            known = "is not carried out by this release" if operator in STRICTNESS else "is unknown"
            raise BadValue(f"operator `{operator}` {known}; use one of {', '.join(sorted(SUPPORTED_OPERATORS))}")
        if class_ in found:
            raise BadValue(f"class `{class_}` stands twice; name it once")
        found[class_] = operator
    return MappingProxyType(found)


# ---- merge ---------------------------------------------------------------------------------------------------------

Stated = Sequence[tuple[PolicyId, Value]]
"""What each policy states for one obligation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedObligations:
    """Merged values by name, and for each the ids of the policies that the value came from, sorted.

    A policy that asked for less than the merged value is not named: taking it away would change nothing. `recorded` is
    the same as decisions keep it, sorted by name.
    """

    values: Mapping[str, Value]
    policies: Mapping[str, tuple[PolicyId, ...]]
    recorded: tuple[Obligation, ...]

    def limit(self, name: str) -> int | None:
        """The number of a `min` obligation; None where no policy limits it."""
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def bound(self, name: str) -> Decimal | None:
        """The decimal number of a `min` obligation; None where no policy limits it."""
        value = self.values.get(name)
        return value if isinstance(value, Decimal) else None

    def word(self, name: str) -> str | None:
        """The level or name of a `strictest` or `equal` obligation; None where no policy states it."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def names(self, name: str) -> tuple[str, ...]:
        """The members of a `union` obligation, sorted."""
        value = self.values.get(name)
        return tuple(sorted(value)) if isinstance(value, frozenset) else ()

    def operators(self, name: str) -> Operators:
        """The operator for each redaction class."""
        value = self.values.get(name)
        return value if isinstance(value, Mapping) else {}

    def sources(self, name: str) -> tuple[PolicyId, ...]:
        """The policies that the value of `name` came from; empty where no policy states it."""
        return self.policies.get(name, ())


def value_json(value: Value) -> str:
    """The canonical JSON of a merged value: a number, a string, a sorted list or an object."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    plain = sorted(value) if isinstance(value, frozenset) else dict(value) if isinstance(value, Mapping) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def merge(matches: Iterable[tuple[PolicyId, str, str]]) -> MergedObligations | Refused:
    """Merges (policy, obligation, annotation value) of every matching permit; neither order nor repetition matters.

    Refused with `OBLIGATION_UNSUPPORTED` where no stage carries an obligation out, with `OBLIGATION_CONFLICT` where two
    policies state different values of one that must be equal.

    Raises:
        BadValue: a value is malformed, which no loaded bundle holds.
    """
    return _merge(frozenset(matches))


@lru_cache(maxsize=1024)  # few sets of policies ever match together
def _merge(matches: frozenset[tuple[PolicyId, str, str]]) -> MergedObligations | Refused:
    stated: dict[str, set[tuple[PolicyId, str]]] = {}
    for policy, name, raw in matches:
        stated.setdefault(name, set()).add((policy, raw))
    if unsupported := sorted(stated.keys() - set(MERGED)):
        return Refused(code=Code.OBLIGATION_UNSUPPORTED, reason=f"no stage carries out {', '.join(unsupported)}")
    values: dict[str, Value] = {}
    policies: dict[str, tuple[PolicyId, ...]] = {}
    for name in sorted(stated):
        entry = CATALOGUE[name]
        parsed = [(policy, parse(name, raw)) for policy, raw in sorted(stated[name])]
        merged = _LAWS[entry.law](entry, parsed)
        if merged is None:
            ids = ", ".join(sorted({policy for policy, _ in parsed}))
            return Refused(code=Code.OBLIGATION_CONFLICT, reason=f"policies {ids} ask for different values of {name}")
        values[name] = merged
        policies[name] = tuple(sorted({policy for policy, value in parsed if _carries(value, merged)}))
    recorded = (
        Obligation(name=name, value=value_json(value), policies=policies[name]) for name, value in values.items()
    )
    return MergedObligations(
        values=MappingProxyType(values), policies=MappingProxyType(policies), recorded=tuple(recorded)
    )


def _carries(value: Value, merged: Value) -> bool:
    """Whether `value` holds any part of `merged`."""
    if isinstance(value, frozenset) and isinstance(merged, frozenset):
        return bool(value & merged)
    if isinstance(value, Mapping) and isinstance(merged, Mapping):
        return any(merged[class_] == operator for class_, operator in value.items())
    return value == merged


def _min(_: Entry, stated: Stated) -> Value | None:
    return min(value for _, value in stated if isinstance(value, int | Decimal))


def _strictest(entry: Entry, stated: Stated) -> Value | None:
    return max((value for _, value in stated if isinstance(value, str)), key=entry.levels.index)


def _equal(_: Entry, stated: Stated) -> Value | None:
    first = stated[0][1]
    return first if all(value == first for _, value in stated) else None


def _union(_: Entry, stated: Stated) -> Value | None:
    return frozenset[str]().union(*(value for _, value in stated if isinstance(value, frozenset)))


def _strictest_operators(entry: Entry, stated: Stated) -> Value | None:
    found: dict[str, str] = {}
    for _, value in stated:
        if isinstance(value, Mapping):
            for class_, operator in value.items():
                found[class_] = max(found.get(class_, operator), operator, key=entry.levels.index)
    return MappingProxyType(found)


_LAWS: Final[Mapping[Law, Callable[[Entry, Stated], Value | None]]] = MappingProxyType(
    {
        Law.MIN: _min,
        Law.STRICTEST: _strictest,
        Law.EQUAL: _equal,
        Law.UNION: _union,
        Law.OPERATORS: _strictest_operators,
    }
)
