"""The annotations of a policy go in, what each of them does comes out in English; the only place for these words."""

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from sluicegate.enforcer.obligations import CATALOGUE, MERGED, REASON, Law, Value, parse
from sluicegate.enforcer.vocabulary import Match
from sluicegate.policy.english import listed, quoted
from sluicegate.policy.page import code

_WORDS: Final = MappingProxyType(
    {
        ("seed", "client"): "the requester may choose the seed of the draw",
        ("seed", "fixed"): "the seed of the draw is fixed: the requester's own is not taken",
        ("withheld", "label"): "a field that may not enter the prompt leaves `[withheld]` in its place",
        ("withheld", "drop"): "a field that may not enter the prompt is left out without a trace",
        ("withheld", "refuse"): "a request with a field that may not enter the prompt is refused",
        ("numbers", "free"): "numbers and identifiers in the answer are not compared with what the model was given",
        ("numbers", "from_context"): "a number, e-mail address or identifier in the answer that stands in nothing the "
        "model was given becomes `[unsupported]`",
        ("stream", "yes"): "the requester may ask for a stream",
        ("stream", "no"): "nothing is streamed",
        ("over_limit", "clamp"): "who asks for more than is granted gets what is granted",
        ("over_limit", "refuse"): "who asks for more than is granted is refused",
        ("client_system", "demote"): "a system message of the requester is read as a user's message",
        ("client_system", "drop"): "a system message of the requester is left out",
        ("client_system", "refuse"): "a request with a system message is refused",
    }
)
_OPERATORS: Final = MappingProxyType(
    {
        "keep": "stays as it is",
        "last4": "leaves as a label with its last four characters",
        "label": "leaves as a label",
        "drop": "is cut out",
    }
)
_CLASSES: Final = MappingProxyType(
    {
        "CARD": "a card number",
        "EMAIL": "an e-mail address",
        "IBAN": "an account number (IBAN)",
        "IP": "an internet address",
        "PHONE": "a telephone number",
        "SECRET": "a secret such as a key or a password",
    }
)
MATCHES: Final = MappingProxyType(
    {
        Match.WORD: "as a whole word",
        Match.START: "as a whole word or at the start of one",
        Match.ANYWHERE: "anywhere, also inside a word",
    }
)
_LAWS: Final = MappingProxyType(
    {
        Law.MIN: "the smallest counts",
        Law.STRICTEST: "the strictest counts",
        Law.EQUAL: "all must say the same, or the request is denied",
        Law.UNION: "all of them count together",
        Law.OPERATORS: "all classes count together, each with its strictest operator",
        Law.MEET: "what all of them name counts; where that is nothing the request is denied",
        Law.ALL_MIN: "every role is needed, the shortest time counts",
        Law.SHOWN: "all are shown",
    }
)


def annotation_text(name: str, raw: str) -> str:
    """An annotation as it is written: `@max_tokens("64")`."""
    return f"@{name}({json.dumps(raw, ensure_ascii=False)})"


def said_of(annotations: Mapping[str, str]) -> Iterator[str]:
    """Each annotation but the id, by name: as it is written, then what it does."""
    for name, raw in sorted(annotations.items()):
        if name != "id":
            meaning = "; ".join(meanings(name, raw))
            yield f"{code(annotation_text(name, raw))}: {meaning}" if meaning else code(annotation_text(name, raw))


def meanings(name: str, raw: str) -> tuple[str, ...]:
    """What an annotation does, one claim a part; none where this release knows no such annotation."""
    if name == REASON:
        return ("the requester is told so",)
    return value_meanings(name, parse(name, raw)) if name in MERGED else ()


def value_meanings(name: str, value: Value) -> tuple[str, ...]:
    """What a value of an obligation does."""
    if isinstance(value, Mapping):
        where = " in the requester's messages" if name == "redact_prompt" else ""
        return tuple(
            f"{_CLASSES.get(each, quoted(each))}{where} "
            f"{_OPERATORS.get(operator, f'is treated as {quoted(operator)} says')}"
            for each, operator in sorted(value.items())
        )
    if isinstance(value, str) and (name, value) in _WORDS:
        return (_WORDS[name, value],)
    if isinstance(value, frozenset):
        names = [quoted(each) for each in sorted(value)]
    else:
        names = [str(value) if isinstance(value, int | Decimal) else quoted(value)]
    return (_NAMED[name](listed(names)),) if name in _NAMED else ()


_NAMED: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "max_tokens": "the answer is at most {} tokens long".format,
        "system": "the system message is the template {}".format,
        "output": "the answer is one of those that the grammar {} allows".format,
        "max_prompt_tokens": "a prompt of more than {} tokens is refused".format,
        "temperature": "the temperature is at most {}".format,
        "top_p": "top_p is at most {}".format,
        "top_k": "top_k is at most {}".format,
        "stop": "the answer ends before {}".format,
        "alias": "before the model reads them, the names of the term list {} become their public names".format,
    }
)


def law_text(name: str) -> str:
    """What becomes of several values of one obligation, and which stage carries the result out."""
    entry = CATALOGUE[name]
    order = f", from loose to strict: {listed([quoted(each) for each in entry.levels])}" if entry.levels else ""
    return f"where several policies say it, {_LAWS[entry.law]}{order}; carried out by: {entry.stage}"
