"""An expression of a policy goes in, English comes out: the only place that knows how a condition is said.

Two different expressions are said differently: every name and text is quoted, everything nested is bracketed or stands
under its heading, and a phrase of its own belongs to one form alone. What is not known here is given as Cedar's text,
marked as such; nothing is left out.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sluicegate.policy.page import code
from sluicegate.policy.tree import Expression, paths, text_of

_NAME: Final = re.compile(r"[\w.@+-]+(?: [\w.@+-]+)*", re.ASCII)
_CAMEL: Final = re.compile(r"(?:[A-Z][a-z0-9]+)+")
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HOUR: Final = "context.clock.hour"
_PURPOSE: Final = "context.purpose"

_COMPARED: Final = MappingProxyType({"<": "less than", "<=": "at most", ">": "more than", ">=": "at least"})
_TIMES: Final = MappingProxyType({">=": "it is {}:00 UTC or later", "<": "it is before {}:00 UTC"})
_ARITHMETIC: Final = MappingProxyType({"+": "plus", "-": "minus", "*": "times"})
_SETS: Final = MappingProxyType(
    {
        "contains": ("include", "do not include"),
        "containsAll": ("include all of", "do not include all of"),
        "containsAny": ("include one or more of", "include none of"),
    }
)
# Extension functions that make a value of a text, those that turn one value into another, and those that claim.
_MADE: Final = MappingProxyType(
    {"decimal": "the decimal", "ip": "the address", "datetime": "the time", "duration": "the duration"}
)
_TURNED: Final = MappingProxyType(
    {
        "toDate": "the day of {}",
        "toTime": "the time of day of {}",
        "toMilliseconds": "{} in whole milliseconds",
        "toSeconds": "{} in whole seconds",
        "toMinutes": "{} in whole minutes",
        "toHours": "{} in whole hours",
        "toDays": "{} in whole days",
        "offset": "{} moved by {}",
        "durationSince": "the time that {} is after {}",
    }
)
_CLAIMED: Final = MappingProxyType(
    {
        "isIpv4": "{} is an IPv4 address",
        "isIpv6": "{} is an IPv6 address",
        "isLoopback": "{} is a loopback address",
        "isMulticast": "{} is a multicast address",
        "isInRange": "{} is in the address range of {}",
        "lessThan": "{} is, as a decimal, less than {}",
        "lessThanOrEqual": "{} is, as a decimal, at most {}",
        "greaterThan": "{} is, as a decimal, more than {}",
        "greaterThanOrEqual": "{} is, as a decimal, at least {}",
    }
)
_VARIABLES: Final = MappingProxyType(
    {"principal": "the principal", "action": "the action", "resource": "the resource", "context": "the request"}
)
_ALWAYS_KNOWN: Final = MappingProxyType(
    {
        _PURPOSE: "the purpose",
        "context.via": "the carrying service",
        "context.via.speaksFor": "those for whom the carrying service speaks",
        _HOUR: "the hour (UTC)",
        "context.clock.weekday": "the day of the week",
        "context.asked.outputTokens": "the number of tokens asked for",
        "context.model": "the model to be asked",
        "principal.purposes": "the purposes assigned to the principal",
    }
)
_OF_FIELDS: Final = MappingProxyType(
    {
        "resource": "the field",
        "resource.dataset": "the dataset of the field",
        "resource.dataset.labelledBy": "those who may vouch for the labels of that dataset",
    }
)
_OF_MODELS: Final = MappingProxyType({"resource": "the model"})
_CLAIMED_PATHS: Final = MappingProxyType({"context.asked.stream": "the answer is asked for piece by piece"})

Nouns = Mapping[str, str]
"""How what a policy looks at is called, by its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A claim in English: a line and, where it is a heading, what stands under it."""

    text: str
    parts: tuple["Said", ...] = ()

    def after(self, words: str) -> "Said":
        """The same with `words` before it."""
        return Said(text=f"{words} {self.text}", parts=self.parts)

    def inline(self) -> str:
        """All of it in one line."""
        return f"{self.text} [{'; '.join(part.inline() for part in self.parts)}]" if self.parts else self.text


def nouns_for(actions: Sequence[str]) -> Nouns:
    """What the words of conditions are in a policy that names these actions."""
    if actions and set(actions) <= {"read"}:
        return {**_VARIABLES, **_ALWAYS_KNOWN, **_OF_FIELDS}
    if actions and set(actions) <= {"generate", "shape"}:
        return {**_VARIABLES, **_ALWAYS_KNOWN, **_OF_MODELS}
    return {**_VARIABLES, **_ALWAYS_KNOWN}


def quoted(name: str) -> str:
    """A name in backticks, or as a Cedar text where it holds anything unusual."""
    return f"`{name}`" if _NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def type_name(entity_type: str) -> str:
    """`ModelTier` as `model tier`."""
    if _CAMEL.fullmatch(entity_type):
        return _CAPITAL.sub(" ", entity_type).lower()
    return f"`{entity_type}`"


def entity_name(entity_type: str, entity_id: str) -> str:
    """`Role::"support"` as ``role `support` ``."""
    return f"{type_name(entity_type)} {quoted(entity_id)}"


def listed(items: Sequence[str], word: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def in_cedar(expression: Expression) -> str:
    """What is not known here, as Cedar's own text, marked as such."""
    return f"(in Cedar: {code(text_of(expression))})"


# ---- claims --------------------------------------------------------------------------------------------------------


def claim(expression: Expression, nouns: Nouns) -> Said:
    """An expression that holds or does not, as a claim."""
    match expression:
        case {"&&": _}:
            return _junction("&&", "all of these hold:", expression, nouns)
        case {"||": _}:
            return _junction("||", "any of these holds:", expression, nouns)
        case {"!": {"arg": dict() as inner, **rest}} if not rest:
            return _denied(inner, nouns)
        case {"if-then-else": {"if": dict() as asked, "then": dict() as then, "else": dict() as otherwise, **rest}} if (
            not rest
        ):
            cases = (("if", asked), ("then", then), ("otherwise", otherwise))
            return Said(text="by case:", parts=tuple(claim(each, nouns).after(word) for word, each in cases))
        case {"Value": bool() as value}:
            return Said(text="always" if value else "never")
        case _:
            return Said(text=_plain(expression, nouns, denied=False) or in_cedar(expression))


def _junction(operator: str, heading: str, expression: Expression, nouns: Nouns) -> Said:
    """The operands of a chain; one that stands in brackets keeps a heading of its own."""
    operands: list[Expression] = []
    node = expression
    while isinstance(sides := node.get(operator), dict):
        if sides.keys() != {"left", "right"}:
            return Said(text=in_cedar(expression))
        operands.append(sides["right"])
        node = sides["left"]
    operands.append(node)
    return Said(text=heading, parts=tuple(claim(each, nouns) for each in reversed(operands)))


def _denied(inner: Expression, nouns: Nouns) -> Said:
    plain = _plain(inner, nouns, denied=True)
    if plain is not None:
        return Said(text=plain)
    return claim(inner, nouns).after("it is not so that")


def _plain(expression: Expression, nouns: Nouns, *, denied: bool) -> str | None:
    """A claim of one line; where it is denied, only if denying it has a phrase of its own. None: there is none."""
    if len(expression) != 1:
        return None
    ((operator, operands),) = expression.items()
    is_not = "is not" if denied else "is"
    match operator, operands:
        case ".", {"left": dict() as left, "attr": str() as name}:
            return _marked(expression, left, name, nouns, denied=denied)
        case "has", {"left": dict() as left, "attr": str() as name}:
            return f"{noun(left, nouns)} has {'no ' if denied else ''}{quoted(name)}"
        case "is", {"left": dict() as left, "entity_type": str() as kind, **rest} if rest.keys() <= {"in"}:
            inside = rest.get("in")
            where = f" and belongs to {noun(inside, nouns)}" if isinstance(inside, dict) else ""
            return (
                f"{noun(left, nouns)} {is_not} (a {type_name(kind)}{where})"
                if where or denied
                else (f"{noun(left, nouns)} is a {type_name(kind)}")
            )
        case "in", {"left": dict() as left, "right": dict() as right}:
            belongs = "does not belong to" if denied else "belongs to"
            return f"{noun(left, nouns)} {belongs} {_groups(right, nouns)}"
        case "contains", {"left": {"Set": list() as members}, "right": dict() as right} if members:
            return f"{noun(right, nouns)} {is_not} one of {_members(members, right, nouns)}"
        case (("contains" | "containsAll" | "containsAny"), {"left": dict() as left, "right": dict() as right}):
            return f"{noun(left, nouns)} {_SETS[operator][denied]} {noun(right, nouns)}"
        case "isEmpty", {"arg": dict() as inner}:
            return f"{noun(inner, nouns)} {is_not} empty"
        case _ if denied:
            return None
        case "==", {"left": dict() as left, "right": dict() as right}:
            return _equal(left, right, nouns)
        case "!=", {"left": dict() as left, "right": dict() as right}:
            return f"{noun(left, nouns)} differs from {_seen_from(left, right, nouns)}"
        case (("<" | "<=" | ">" | ">="), {"left": dict() as left, "right": dict() as right}):
            return _compared(operator, left, right, nouns)
        case "like", {"left": dict() as left, "pattern": list() as pattern}:
            return _like(left, pattern, nouns)
        case "hasTag", {"left": dict() as left, "right": dict() as right}:
            return f"{noun(left, nouns)} has the tag {noun(right, nouns)}"
        case str() as function, list() as arguments:
            return _called(_CLAIMED, function, arguments, nouns)
        case _:
            return f"{whole} holds" if (whole := _noun(expression, nouns)) is not None else None


def _marked(expression: Expression, left: Expression, name: str, nouns: Nouns, *, denied: bool) -> str | None:
    (path, *others) = paths(expression) or ("",)
    if not others and path in _CLAIMED_PATHS and _is_chain(expression):
        return None if denied else _CLAIMED_PATHS[path]
    return f"{noun(left, nouns)} is {'not ' if denied else ''}marked {quoted(name)}"


def _equal(left: Expression, right: Expression, nouns: Nouns) -> str:
    verb = "is equal to" if isinstance(right.get("Value"), bool) else "is"
    return f"{noun(left, nouns)} {verb} {_seen_from(left, right, nouns)}"


def _compared(operator: str, left: Expression, right: Expression, nouns: Nouns) -> str:
    hour = right.get("Value")
    if operator in _TIMES and _path_is(left, _HOUR) and isinstance(hour, int) and not isinstance(hour, bool):
        return _TIMES[operator].format(hour)
    return f"{noun(left, nouns)} is {_COMPARED[operator]} {noun(right, nouns)}"


def _like(left: Expression, pattern: Sequence[object], nouns: Nouns) -> str | None:
    written = ""
    for piece in pattern:
        match piece:
            case "Wildcard":
                written += "*"
            case {"Literal": str() as text}:
                written += json.dumps(text, ensure_ascii=False)[1:-1].replace("*", "\\*")
            case _:
                return None
    return f'{noun(left, nouns)} looks like "{written}", where * is any text'


def _groups(right: Expression, nouns: Nouns) -> str:
    match right:
        case {"Set": list() as members} if members:
            return f"one of {listed([noun(each, nouns) for each in members], 'or')}"
        case _:
            return noun(right, nouns)


def _members(members: Sequence[Expression], other: Expression, nouns: Nouns) -> str:
    return listed([_seen_from(other, each, nouns) for each in members])


def _seen_from(other: Expression, expression: Expression, nouns: Nouns) -> str:
    """A value beside what it is compared with, which may say already what it is one of."""
    match expression:
        case {"Value": {"__entity": {"type": "Purpose", "id": str() as name}}} if _path_is(other, _PURPOSE):
            return quoted(name)
        case {"Value": int() as day} if _path_is(other, "context.clock.weekday") and day in range(7):
            return _WEEKDAYS[day] if not isinstance(day, bool) else noun(expression, nouns)
        case _:
            return noun(expression, nouns)


# ---- nouns ---------------------------------------------------------------------------------------------------------


def noun(expression: Expression, nouns: Nouns) -> str:
    """An expression as a thing that claims are made about."""
    found = _noun(expression, nouns)
    if found is not None:
        return found
    said = claim(expression, nouns)
    return said.text if said.text.startswith("(in Cedar: ") else f"whether [{said.inline()}]"


def _noun(expression: Expression, nouns: Nouns) -> str | None:
    """None: it is no thing, or not known."""
    if len(expression) != 1:
        return None
    ((operator, operands),) = expression.items()
    match operator, operands:
        case "Value", value:
            return _value(value)
        case "Var", str() as variable:
            return nouns.get(variable)
        case ".", {"left": dict() as left, "attr": str() as name}:
            known = nouns.get(paths(expression)[0]) if _is_chain(expression) else None
            return known if known is not None else f"{quoted(name)} of {noun(left, nouns)}"
        case "Set", list() as members:
            return f"the set of [{'; '.join(noun(each, nouns) for each in members)}]"
        case "Record", dict() as members:
            inner = "; ".join(f"{quoted(name)}: {noun(each, nouns)}" for name, each in members.items())
            return f"the record of [{inner}]"
        case (("+" | "-" | "*"), {"left": dict() as left, "right": dict() as right}):
            return f"[{noun(left, nouns)} {_ARITHMETIC[operator]} {noun(right, nouns)}]"
        case "neg", {"arg": dict() as inner}:
            return f"the negative of [{noun(inner, nouns)}]"
        case "getTag", {"left": dict() as left, "right": dict() as right}:
            return f"the tag {noun(right, nouns)} of {noun(left, nouns)}"
        case "if-then-else", {"if": dict() as asked, "then": dict() as then, "else": dict() as otherwise}:
            condition = claim(asked, nouns).inline()
            return f"[if {condition}; then {noun(then, nouns)}; otherwise {noun(otherwise, nouns)}]"
        case str() as function, [{"Value": str() as text}] if function in _MADE:
            return f"{_MADE[function]} {quoted(text)}"
        case str() as function, [dict() as inner] if function in _MADE:
            return f"{_MADE[function]} written in [{noun(inner, nouns)}]"
        case str() as function, list() as arguments:
            return _called(_TURNED, function, arguments, nouns)
        case _:
            return None


def _called(phrases: Mapping[str, str], function: str, arguments: Sequence[Expression], nouns: Nouns) -> str | None:
    phrase = phrases.get(function)
    if phrase is None or phrase.count("{}") != len(arguments):
        return None
    bracketed: Callable[[Expression], str] = lambda each: f"[{noun(each, nouns)}]"  # noqa: E731
    plain = phrases is _CLAIMED
    return phrase.format(*(noun(each, nouns) if plain else bracketed(each) for each in arguments))


def _value(value: object) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case {"__entity": {"type": str() as kind, "id": str() as name}}:
            return entity_name(kind, name)
        case _:
            return None


def _is_chain(expression: Expression) -> bool:
    """Whether it is a variable and attributes of it, such as `context.clock.hour`."""
    while isinstance(inner := expression.get("."), dict) and isinstance(inner["left"], dict):
        expression = inner["left"]
    return "Var" in expression


def _path_is(expression: Expression, path: str) -> bool:
    return "." in expression and _is_chain(expression) and paths(expression) == (path,)
