"""A request, the fields it may not use and the merged obligations go in, the prompt for the model comes out; check 6.

The only place that puts a prompt together. Every piece of it keeps where it came from. Role markers inside a text are
left as they are: the tokenizer encodes frame and contents apart, so they stay text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sluicegate.enforcer import alias
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.obligations import MergedObligations
from sluicegate.enforcer.vocabulary import has_control_character
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import AliasUse, Document, RequestSubmitted, Role, Segment, ShapedMessage

WITHHELD_LABEL = "[withheld]"
FRAME = "frame"
# How a withheld field looks where no shape policy says: with the value just left out the model invents one.
WITHHELD_DEFAULT = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """The prompt, and how often each public name was put in."""

    prompt: tuple[ShapedMessage, ...]
    aliases: tuple[AliasUse, ...]


def field_name(document: Document, name: str) -> str:
    """How decisions and the directory call a field: DATASET.FIELD."""
    return f"{document.dataset}.{name}"


def shape_prompt(
    request: RequestSubmitted, *, denied: frozenset[str], merged: MergedObligations, bundle: Bundle
) -> Shaped | Refused:
    """Builds the prompt: the policy's template, then the conversation with the documents before the last question.

    `denied` holds the fields, DATASET.FIELD, that may not enter. Documents stand in the last user message, in order,
    each followed by a line feed, then the question.
    """
    # 6.1 instructions come from policy alone
    if any(message.role is Role.SYSTEM for message in request.messages):
        return Refused(code=Code.SYSTEM_MESSAGE)
    # 6.2 there is a question to answer
    if not request.messages or request.messages[-1].role is not Role.USER:
        return Refused(code=Code.PARAMETER_INVALID, reason="the last message must be a user's; end with the question")
    # 6.3 withhold
    treatment = merged.word("withheld") or WITHHELD_DEFAULT
    if denied and treatment == "refuse":
        return Refused(code=Code.WITHHELD_REFUSED, reason="withheld: " + ", ".join(sorted(denied)))
    label = WITHHELD_LABEL if treatment == "label" else ""
    conversation = _conversation(request, denied=denied, label=label)
    # 6.4 no text that the model would read otherwise than the filters do
    if any(has_control_character(segment.text) for message in conversation for segment in message.segments):
        return Refused(code=Code.CONTROL_CHARACTER)
    # 6.5 public names in place of unreleased ones
    lists = tuple(bundle.term_lists[name] for name in merged.names("alias"))
    used: Counter[alias.Key] = Counter()
    if lists:
        aliases = alias.compiled(lists)
        conversation = [_aliased(message, aliases, used) for message in conversation]
    # 6.6 the template in front
    template = merged.word("system")
    if template is not None:
        segment = Segment(text=bundle.templates[template], source=f"template:{template}")
        conversation = [ShapedMessage(role=Role.SYSTEM, segments=(segment,)), *conversation]
    return Shaped(
        prompt=tuple(conversation),
        aliases=tuple(
            AliasUse(term_list=term_list, alias=name, count=used[term_list, name]) for term_list, name in sorted(used)
        ),
    )


def _conversation(request: RequestSubmitted, *, denied: frozenset[str], label: str) -> list[ShapedMessage]:
    messages = []
    last = len(request.messages) - 1
    for index, message in enumerate(request.messages):
        segments = [Segment(text=message.content, source=f"message:{index}")]
        if index == last:
            segments = [*_documents(request.documents, denied=denied, label=label), *segments]
        messages.append(ShapedMessage(role=message.role, segments=tuple(segments)))
    return messages


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
    texts, counts = aliases.replace([segment.text for segment in message.segments])
    if not counts:
        return message
    used.update(counts)
    segments = zip(message.segments, texts, strict=True)
    return replace(message, segments=tuple(replace(segment, text=text) for segment, text in segments))
