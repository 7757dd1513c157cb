"""An expression of a policy goes in, the values that its terms may have where it holds come out; no evaluator.

An expression becomes a list of boxes: in each, a term (`context.clock.hour`) has a range or a set of values that it may
have. The boxes hold every request for which the expression is true, and maybe more: what is not understood says
nothing. So *no box* proves that it is never true, and *no common box* that two are never true together.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sluicegate.policy.tree import Expression, PolicyTree

BOXES_MAX: Final = 256
_RANGE_MAX: Final = 1_000
_NEGATED: Final[Mapping[str, str]] = MappingProxyType({"<": ">=", "<=": ">", ">": "<=", ">=": "<"})
_TURNED: Final[Mapping[str, str]] = MappingProxyType({"<": ">", "<=": ">=", ">": "<", ">=": "<="})

Literal = int | str
"""A whole number, or the canonical JSON of any other literal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a term may be worth: numbers within bounds, one of `allowed` (None: anything), none of `excluded`."""

    low: int = -(2**63)
    high: int = 2**63 - 1
    allowed: frozenset[Literal] | None = None
    excluded: frozenset[Literal] = frozenset()

    def both(self, other: "Values") -> "Values":
        """What either leaves."""
        sets = [each.allowed for each in (self, other) if each.allowed is not None]
        return Values(
            low=max(self.low, other.low),
            high=min(self.high, other.high),
            allowed=frozenset.intersection(*sets) if sets else None,
            excluded=self.excluded | other.excluded,
        )

    def empty(self) -> bool:
        """Whether nothing is left."""
        if self.low > self.high:
            return True
        if self.allowed is not None:
            return not any(self._within(each) for each in self.allowed)
        if self.high - self.low >= _RANGE_MAX:
            return False
        return all(each in self.excluded for each in range(self.low, self.high + 1))

    def _within(self, value: Literal) -> bool:
        return value not in self.excluded and (isinstance(value, str) or self.low <= value <= self.high)


Box = Mapping[str, Values]
"""Values by term; a term is the canonical JSON of its expression, with `type of ` before it for its type."""
Boxes = tuple[Box, ...]
NEVER: Final[Boxes] = ()
ALWAYS: Final[Boxes] = (MappingProxyType({}),)
TYPE_OF: Final = "type of "


def _key(expression: object) -> str:
    return json.dumps(expression, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _attribute(name: str) -> str:
    return _key({".": {"left": {".": {"left": {"Var": "context"}, "attr": "clock"}}, "attr": name}})


_BOUNDS: Final[Box] = MappingProxyType(
    {_attribute("hour"): Values(low=0, high=23), _attribute("weekday"): Values(low=0, high=6)}
)
"""What the gate itself never exceeds (`access._asking_context`)."""


def boxes(expression: Expression, *, holds: bool = True) -> Boxes:
    """The boxes of an expression that holds, or that does not."""
    ((operator, operands),) = expression.items()
    match operator, operands:
        case "Value", bool() as known:
            return ALWAYS if known is holds else NEVER
        case "!", {"arg": inner}:
            return boxes(inner, holds=not holds)
        case (("&&" | "||"), {"left": left, "right": right}):
            first, second = boxes(left, holds=holds), boxes(right, holds=holds)
            return common(first, second) if (operator == "&&") is holds else either(first, second)
        case "if-then-else", {"if": asked, "then": then, "else": otherwise}:
            yes = common(boxes(asked), boxes(then, holds=holds))
            return either(yes, common(boxes(asked, holds=False), boxes(otherwise, holds=holds)))
        case (("<" | "<=" | ">" | ">="), {"left": left, "right": right}):
            return _compared(expression, operator, left, right, holds=holds)
        case (("==" | "!="), {"left": left, "right": right}):
            return _equal(expression, left, right, holds=holds is (operator == "=="))
        case "contains", {"left": {"Set": list() as members}, "right": right}:
            return _one_of(expression, right, members, holds=holds)
        case "in", {"left": left, "right": {"Set": list() as members}}:
            each = [boxes({"in": {"left": left, "right": member}}, holds=holds) for member in members]
            return _all(each) if not holds else _any(each)
        case "is", {"left": left, "entity_type": str() as entity_type, **rest}:
            return _is(left, entity_type, rest.get("in"), holds=holds)
        case _:
            return _truth(_key(expression), holds=holds)


def policy_boxes(tree: PolicyTree) -> Boxes:
    """The boxes of the requests that a policy matches, whatever the action."""
    found = ALWAYS
    for variable, scope in tree.scopes():
        said = None if variable == "action" else scope.expression(variable)
        if said is not None:
            found = common(found, boxes(said))
    for condition in tree.conditions:
        found = common(found, boxes(condition.body, holds=condition.kind == "when"))
    return found


def unmatched_boxes(tree: PolicyTree) -> Boxes:
    """The boxes of the requests that a policy does not match, for an action that it names."""
    found = NEVER
    for variable, scope in tree.scopes():
        said = None if variable == "action" else scope.expression(variable)
        if said is not None:
            found = either(found, boxes(said, holds=False))
    for condition in tree.conditions:
        found = either(found, boxes(condition.body, holds=condition.kind != "when"))
    return found


def without_action(found: Boxes) -> Boxes:
    """The same, saying nothing of terms that look at the action."""
    return tuple({term: values for term, values in box.items() if '{"Var":"action"}' not in term} for box in found)


def common(first: Boxes, second: Boxes) -> Boxes:
    """The boxes of requests that are in both; of `first` alone where there would be too many."""
    if len(first) * len(second) > BOXES_MAX:
        return min(first, second, key=len)
    return tuple(met for one in first for other in second if (met := _met(one, other)) is not None)


def either(first: Boxes, second: Boxes) -> Boxes:
    """The boxes of requests that are in one of the two; everything where there would be too many."""
    return ALWAYS if len(first) + len(second) > BOXES_MAX else first + second


def _met(one: Box, other: Box) -> Box | None:
    met = dict(one)
    for term, values in other.items():
        left = met[term].both(values) if term in met else values
        if left.empty():
            return None
        met[term] = left
    return met


def _all(each: Iterable[Boxes]) -> Boxes:
    found = ALWAYS
    for one in each:
        found = common(found, one)
    return found


def _any(each: Iterable[Boxes]) -> Boxes:
    found = NEVER
    for one in each:
        found = either(found, one)
    return found


def _box(term: str, values: Values) -> Boxes:
    met = _met({term: _BOUNDS.get(term, Values())}, {term: values})
    return NEVER if met is None else (met,)


def _truth(term: str, *, holds: bool) -> Boxes:
    return _box(term, Values(allowed=frozenset({"true" if holds else "false"})))


def _literal(expression: object) -> Literal | None:
    match expression:
        case {"Value": bool() as value}:
            return _key(value)
        case {"Value": int() as value}:
            return value
        case {"Value": value}:
            return _key(value)
        case {"neg": {"arg": {"Value": int() as value}}}:
            return -value
        case _:
            return None


def _compared(expression: Expression, operator: str, left: object, right: object, *, holds: bool) -> Boxes:
    first, second = _literal(left), _literal(right)
    if first is not None and second is None:
        left, first, second, operator = right, None, first, _TURNED[operator]
    if first is not None or not isinstance(second, int):
        return _truth(_key(expression), holds=holds)
    match operator if holds else _NEGATED[operator]:
        case "<":
            values = Values(high=second - 1)
        case "<=":
            values = Values(high=second)
        case ">":
            values = Values(low=second + 1)
        case _:
            values = Values(low=second)
    return _box(_key(left), values)


def _equal(expression: Expression, left: object, right: object, *, holds: bool) -> Boxes:
    if _literal(left) is not None:
        left, right = right, left
    value = _literal(right)
    if value is None or _literal(left) is not None:
        # `==` and `!=` of the same two are one term.
        return _truth(_key({"==": {"left": left, "right": right}}), holds=holds)
    return _one_of(expression, left, [right], holds=holds)


def _one_of(expression: Expression, term: object, members: list[object], *, holds: bool) -> Boxes:
    """Whether `term` is one of some literals."""
    values = [_literal(member) for member in members]
    known = frozenset(value for value in values if value is not None)
    if len(known) < len(set(values)) or _literal(term) is not None:
        return _truth(_key(expression), holds=holds)
    if not holds:
        return _box(_key(term), Values(excluded=known))
    types = {_type(member) for member in members}
    found = _box(_key(term), Values(allowed=known))
    if None not in types:
        said = Values(allowed=frozenset(str(each) for each in types))
        found = common(found, _box(TYPE_OF + _key(term), said))
    return found


def _type(literal: object) -> str | None:
    """The type of an entity that is written out; None of any other literal."""
    match literal:
        case {"Value": {"__entity": {"type": str() as entity_type}}}:
            return entity_type
        case _:
            return None


def _is(left: object, entity_type: str, within: object, *, holds: bool) -> Boxes:
    term = TYPE_OF + _key(left)
    if holds:
        found = _box(term, Values(allowed=frozenset({entity_type})))
        return found if within is None else common(found, boxes({"in": {"left": left, "right": within}}))
    other = _box(term, Values(excluded=frozenset({entity_type})))
    return other if within is None else either(other, boxes({"in": {"left": left, "right": within}}, holds=False))
