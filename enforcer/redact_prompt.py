"""A client's messages and what they may not hold go in, the same messages as segments come out; the only place for it.

Messages alone: whether a field of a document enters is its own `read`, and a second rule for it would drift from that
one. The bundle's redaction rules find the values, by the same scanner and operators as in an answer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sluicegate.enforcer.detect import RedactionClass, RuleTable, Scanner, compile_table
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.redact import Operator, cut
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Message, PromptRedaction, Segment, ShapedMessage

REDACTIONS_MAX: Final = 2_000
"""Values in all messages of one request; more are refused, for each of them makes the decision longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The messages as segments, `message:N` and `redacted:message:N`, and what was taken out."""

    messages: tuple[ShapedMessage, ...]
    redactions: tuple[PromptRedaction, ...]


def redact_messages(
    messages: Sequence[tuple[int, Message]], *, operators: Mapping[str, str], table: RuleTable
) -> Checked | Refused:
    """Replaces values of the classes in `operators`; the number of a message is that in the request."""
    hidden = {
        RedactionClass(class_): Operator(operator)
        for class_, operator in operators.items()
        if operator != Operator.KEEP
    }
    if not hidden:
        return Checked(messages=tuple(_whole(index, message) for index, message in messages), redactions=())
    scanner = _scanner(table)
    shaped: list[ShapedMessage] = []
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for index, message in messages:
        source = f"message:{index}"
        parts = cut(message.content, scanner, hidden)
        if parts is None:
            return Refused(code=Code.PROMPT_NOT_CHECKED)
        segments = [
            Segment(text=text, source=source if redaction is None else f"redacted:{source}")
            for text, redaction in parts
        ]
        shaped.append(ShapedMessage(role=message.role, segments=tuple(segments)))
        counts.update(
            (source, str(each.class_), str(each.operator), each.rule_id) for _, each in parts if each is not None
        )
        if counts.total() > REDACTIONS_MAX:
            return Refused(code=Code.PROMPT_NOT_CHECKED)
    return Checked(
        messages=tuple(shaped),
        redactions=tuple(
            PromptRedaction(source=source, redaction_class=class_, operator=operator, rule_id=rule, count=count)
            for (source, class_, operator, rule), count in counts.items()
        ),
    )


def _whole(index: int, message: Message) -> ShapedMessage:
    return ShapedMessage(role=message.role, segments=(Segment(text=message.content, source=f"message:{index}"),))


@lru_cache(maxsize=4)
def _scanner(table: RuleTable) -> Scanner:
    """The rules of the bundles in use, compiled once each."""
    return compile_table(table)
