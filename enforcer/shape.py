"""A request, the fields it may not use and the merged obligations go in, the prompt for the model comes out; check 6.

The only place that puts a prompt together. Every piece of it keeps where it came from (`materials` says who let it in).
Role markers inside a text are left as they are: the tokenizer encodes frame and contents apart, so they stay text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sluicegate.enforcer import alias
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.obligations import MergedObligations
from sluicegate.enforcer.paths import field_name
from sluicegate.enforcer.redact_prompt import redact_messages
from sluicegate.enforcer.vocabulary import has_control_character
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    AliasUse,
    Clamp,
    Document,
    Message,
    PromptRedaction,
    RequestSubmitted,
    Role,
    Segment,
    ShapedMessage,
)

WITHHELD_LABEL: Final = "[withheld]"
FRAME: Final = "frame"
# How a withheld field looks where no shape policy says: with the value just left out the model invents one.
WITHHELD_DEFAULT: Final = "label"
# The loosest, so that a policy that says something only tightens. It gives nothing away: any producer may say the same
# as a user's message.
CLIENT_SYSTEM_DEFAULT: Final = "demote"
CLIENT_SYSTEM: Final = "client_system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """The prompt, how often each public name was put in, what was taken out of messages, and what became of the
    client's system messages.
    """

    prompt: tuple[ShapedMessage, ...]
    aliases: tuple[AliasUse, ...]
    redactions: tuple[PromptRedaction, ...] = ()
    clamps: tuple[Clamp, ...] = ()


def shape_prompt(
    request: RequestSubmitted, *, denied: frozenset[str], merged: MergedObligations, bundle: Bundle
) -> Shaped | Refused:
    """Builds the prompt: the policy's template, then the conversation with the documents before the last question.

    `denied` holds the fields, DATASET.FIELD, that may not enter. Documents stand in the last user message, in order,
    each followed by a line feed, then the question.
    """
    # 6.1 instructions come from policy alone
    treatment = merged.word(CLIENT_SYSTEM) or CLIENT_SYSTEM_DEFAULT
    instructions = sum(message.role is Role.SYSTEM for message in request.messages)
    if instructions and treatment == "refuse":
        return Refused(code=Code.SYSTEM_MESSAGE)
    # 6.2 there is a question to answer
    if not request.messages or request.messages[-1].role is not Role.USER:
        return Refused(code=Code.PARAMETER_INVALID, reason="the last message must be a user's; end with the question")
    messages = _instructed(request.messages, treatment)
    # 6.3 withhold
    looks = merged.word("withheld") or WITHHELD_DEFAULT
    if denied and looks == "refuse":
        return Refused(code=Code.WITHHELD_REFUSED, reason="withheld: " + ", ".join(sorted(denied)))
    label = WITHHELD_LABEL if looks == "label" else ""
    documents = _documents(request.documents, denied=denied, label=label)
    # 6.4 no text that the model would read otherwise than the filters do
    texts = [*(message.content for _, message in messages), *(segment.text for segment in documents)]
    if any(map(has_control_character, texts)):
        return Refused(code=Code.CONTROL_CHARACTER)
    # 6.5 what messages may not hold, whoever pasted it
    checked = redact_messages(messages, operators=merged.operators("redact_prompt"), table=bundle.redaction)
    if isinstance(checked, Refused):
        return checked
    *before, last = checked.messages
    conversation = [*before, replace(last, segments=(*documents, *last.segments))]
    # 6.6 public names in place of unreleased ones
    lists = tuple(bundle.term_lists[name] for name in merged.names("alias"))
    used: Counter[alias.Key] = Counter()
    if lists:
        aliases = alias.compiled(lists)
        conversation = [_aliased(message, aliases, used) for message in conversation]
    # 6.7 the template in front
    template = merged.word("system")
    if template is not None:
        segment = Segment(text=bundle.templates[template], source=f"template:{template}")
        conversation = [ShapedMessage(role=Role.SYSTEM, segments=(segment,)), *conversation]
    return Shaped(
        prompt=tuple(conversation),
        aliases=tuple(
            AliasUse(term_list=term_list, alias=name, count=used[term_list, name]) for term_list, name in sorted(used)
        ),
        redactions=checked.redactions,
        clamps=_told(instructions, treatment, merged),
    )


def _instructed(messages: Sequence[Message], treatment: str) -> list[tuple[int, Message]]:
    """The messages by their number in the request, the client's system messages as users' or left out."""
    kept = []
    for index, message in enumerate(messages):
        if message.role is not Role.SYSTEM:
            kept.append((index, message))
        elif treatment == "demote":
            kept.append((index, replace(message, role=Role.USER)))
    return kept


def _told(instructions: int, treatment: str, merged: MergedObligations) -> tuple[Clamp, ...]:
    if not instructions:
        return ()
    asked = f"{instructions} system message{'s' if instructions > 1 else ''}"
    granted = "as user messages" if treatment == "demote" else "dropped"
    return (Clamp(name=CLIENT_SYSTEM, asked=asked, granted=granted, policies=merged.sources(CLIENT_SYSTEM)),)


def _documents(documents: Sequence[Document], *, denied: frozenset[str], label: str) -> list[Segment]:
    segments = []
    for document in documents:
        for piece in document.fields:
            name = field_name(document, piece.name)
            withheld = name in denied
            source = f"withheld:{name}" if withheld else f"field:{name}"
            segments.append(Segment(text=label if withheld else piece.text, source=source))
        segments.append(Segment(text="\n", source=FRAME))
    return segments


def _aliased(message: ShapedMessage, aliases: alias.Aliases, used: Counter[alias.Key]) -> ShapedMessage:
    cut, counts = aliases.cut([segment.text for segment in message.segments])
    if not counts:
        return message
    used.update(counts)
    segments = (
        Segment(text=text, source=segment.source if key is None else f"alias:{key[0]}")
        for segment, parts in zip(message.segments, cut, strict=True)
        for text, key in parts or ((segment.text, None),)
    )
    return replace(message, segments=tuple(segments))
