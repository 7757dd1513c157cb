"""Two bundles go in, what differs outside their policies comes out; the only place that compares the rest of a bundle.

The rest is what decides or redacts: schema, redaction rules, templates, grammars, term lists. Test cases are not, so
they are not compared.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.detect import Rule
from sluicegate.enforcer.vocabulary import Choice, TermList
from sluicegate.policy.changes import Sign

T_ = TypeVar("T_")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentChange:
    """One named thing that came, went or changed, and lines that say how: signed like those of a diff."""

    sign: Sign
    kind: str
    name: str
    lines: tuple[str, ...]


def content_changes(old: Bundle, new: Bundle) -> tuple[ContentChange, ...]:
    """Everything outside the policies that differs, by kind and name."""
    found = [*_schema(old, new)]
    found += _named("redaction rule", _rules(old), _rules(new), _rule)
    found += _named("template", old.templates, new.templates, lambda text: text.split("\n"))
    found += _named("grammar", old.grammars, new.grammars, _grammar)
    found += _named("term list", old.term_lists, new.term_lists, _terms)
    if old.name != new.name:
        found.append(ContentChange(sign="~", kind="name", name=new.name, lines=(f"- {old.name}", f"+ {new.name}")))
    return tuple(found)


def _named(
    kind: str, old: Mapping[str, T_], new: Mapping[str, T_], lines: Callable[[T_], list[str]]
) -> Iterator[ContentChange]:
    for name in sorted({*old, *new}):
        before, after = (lines(each[name]) if name in each else None for each in (old, new))
        if before is None or after is None:
            sign: Sign = "+" if before is None else "-"
            whole = tuple(f"{sign} {line}" for line in (before if after is None else after) or ())
            yield ContentChange(sign=sign, kind=kind, name=name, lines=whole)
        elif before != after:
            yield ContentChange(sign="~", kind=kind, name=name, lines=_different(before, after))


def _schema(old: Bundle, new: Bundle) -> Iterator[ContentChange]:
    """The engine writes a schema in one form and order, whatever it was written in."""
    before, after = (str(each.schema).splitlines() for each in (old, new))
    if before != after:
        yield ContentChange(sign="~", kind="schema", name="schema.cedarschema", lines=_different(before, after))


def _different(before: list[str], after: list[str]) -> tuple[str, ...]:
    return tuple(line for line in difflib.ndiff(before, after) if line.startswith(("+", "-")))


def _rules(bundle: Bundle) -> Mapping[str, Rule]:
    return {rule.id: rule for rule in bundle.redaction.rules}


def _rule(rule: Rule) -> list[str]:
    lines = [
        f"class: {rule.class_.value}",
        f"pattern: {rule.pattern}",
        f"validator: {rule.validator}",
        f"priority: {rule.priority}",
    ]
    return [*lines, f"context: {', '.join(rule.context)}"] if rule.context else lines


def _grammar(grammar: Choice) -> list[str]:
    return list(grammar.choices)


def _terms(terms: TermList) -> list[str]:
    return [f"match: {terms.match.value}", *sorted(f"{each.text} -> {each.alias}" for each in terms.terms)]
