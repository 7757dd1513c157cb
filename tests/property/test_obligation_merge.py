"""Invariant 6: adding a matching obligation never loosens. Neither order nor repetition matters. A conflict denies."""

import json
from collections.abc import Mapping
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.detect import CLASSES
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.obligations import CATALOGUE, MERGED, Law, MergedObligations, Value, merge, parse
from sluicegate.enforcer.redact import STRICTNESS, SUPPORTED_OPERATORS
from sluicegate.schemas.codes import Code


def _is_text(text: str) -> bool:
    return all(not "\ud800" <= character <= "\udfff" for character in text)


NAMES = st.sampled_from(["a", "b", "c"])


def values(name: str) -> st.SearchStrategy[str]:
    entry = CATALOGUE[name]
    match entry.law:
        case Law.MIN if entry.decimal:
            return st.integers(1, entry.most * 1000).map(lambda thousandths: f"{thousandths / 1000:.3f}")
        case Law.MIN:
            return st.integers(1, entry.most).map(str)
        case Law.STRICTEST:
            return st.sampled_from(entry.levels)
        case Law.EQUAL:
            return NAMES
        case Law.UNION if name == "stop":
            return st.lists(st.text(min_size=1, max_size=3).filter(_is_text), min_size=1, max_size=4, unique=True).map(
                json.dumps
            )
        case Law.UNION:
            return st.lists(NAMES, min_size=1, unique=True).map(", ".join)
        case Law.OPERATORS:
            operators = st.dictionaries(
                st.sampled_from(sorted(CLASSES)), st.sampled_from(sorted(SUPPORTED_OPERATORS)), min_size=1
            )
            return operators.map(lambda found: ", ".join(f"{class_}={operator}" for class_, operator in found.items()))
        case _:
            raise AssertionError(entry)


def stated(name: str) -> st.SearchStrategy[tuple[str, str, str]]:
    return st.tuples(st.sampled_from(["p0", "p1", "p2", "p3"]), st.just(name), values(name))


STATED = st.sampled_from(MERGED).flatmap(stated)
# Many of one obligation meet more often than many of any.
MATCHES = st.lists(STATED, max_size=12) | st.sampled_from(MERGED).flatmap(
    lambda name: st.lists(stated(name), max_size=5)
)


def as_strict(name: str, tight: Value, loose: Value) -> bool:
    """Whether `tight` allows nothing that `loose` does not."""
    entry = CATALOGUE[name]
    match entry.law:
        case Law.MIN:
            assert isinstance(tight, int | Decimal)
            assert isinstance(loose, int | Decimal)
            return tight <= loose
        case Law.STRICTEST:
            return entry.levels.index(str(tight)) >= entry.levels.index(str(loose))
        case Law.EQUAL:
            return tight == loose
        case Law.UNION:
            return isinstance(tight, frozenset) and isinstance(loose, frozenset) and tight >= loose
        case Law.OPERATORS:
            assert isinstance(tight, Mapping)
            assert isinstance(loose, Mapping)
            return all(
                class_ in tight and STRICTNESS.index(tight[class_]) >= STRICTNESS.index(operator)
                for class_, operator in loose.items()
            )
        case _:
            raise AssertionError(entry)


def test_the_order_itself_can_say_no() -> None:
    assert not as_strict("max_tokens", 25, 24)
    assert not as_strict("temperature", Decimal("0.31"), Decimal("0.3"))
    assert not as_strict("seed", "client", "fixed")
    assert not as_strict("alias", frozenset({"a"}), frozenset({"b"}))
    assert not as_strict("redact", {"IBAN": "last4"}, {"IBAN": "label"})
    assert not as_strict("redact", {"IBAN": "label"}, {"CARD": "label"})


@given(MATCHES, st.data())
def test_one_more_never_loosens(matches: list[tuple[str, str, str]], data: st.DataObject) -> None:
    more = data.draw(stated(matches[0][1]) | STATED if matches else STATED)
    before, after = merge(matches), merge([*matches, more])
    if isinstance(after, Refused):
        return  # denied: nothing is stricter
    assert isinstance(before, MergedObligations), "one more obligation lifted a refusal"
    for name, loose in before.values.items():
        assert as_strict(name, after.values[name], loose)
    assert as_strict(more[1], after.values[more[1]], parse(more[1], more[2]))


@given(MATCHES.flatmap(lambda matches: st.tuples(st.just(matches), st.permutations(matches))))
def test_order_never_matters(pair: tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]) -> None:
    assert merge(pair[0]) == merge(pair[1])


@given(MATCHES)
def test_said_twice_is_said_once(matches: list[tuple[str, str, str]]) -> None:
    assert merge(matches + matches) == merge(matches)


@given(MATCHES)
def test_refused_exactly_where_two_must_be_equal_and_are_not(matches: list[tuple[str, str, str]]) -> None:
    conflict = any(len({raw for _, name, raw in matches if name == equal}) > 1 for equal in ("system", "output"))
    merged = merge(matches)
    assert isinstance(merged, Refused) == conflict
    if isinstance(merged, Refused):
        assert merged.code is Code.OBLIGATION_CONFLICT


@given(MATCHES)
def test_every_value_names_the_policies_it_came_from(matches: list[tuple[str, str, str]]) -> None:
    merged = merge(matches)
    if isinstance(merged, Refused):
        return
    assert {name for _, name, _ in matches} == set(merged.values) == set(merged.policies)
    for name in merged.values:
        named = set(merged.sources(name))
        assert named
        assert named <= {policy for policy, stated, _ in matches if stated == name}
        # Those policies alone give the same value.
        assert (
            merge([match for match in matches if match[0] in named and match[1] == name]).values[name]
            == merged.values[name]
        )
