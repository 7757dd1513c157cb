"""A shaped prompt and the rulings behind it go in, its bill of materials comes out; the only place that makes one.

Every byte of a prompt is in exactly one row: rows are by source, and a source says what let it in.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.obligations import MergedObligations
from sluicegate.enforcer.paths import field_name
from sluicegate.enforcer.shape import CLIENT_SYSTEM
from sluicegate.schemas.events import Material, RequestSubmitted, Role, Ruling, ShapedMessage

_OF_DOCUMENTS: Final = ("field:", "withheld:")


def materials(
    prompt: Iterable[ShapedMessage],
    *,
    request: RequestSubmitted,
    rulings: Iterable[Ruling],
    merged: MergedObligations,
) -> tuple[Material, ...]:
    """The rows, in the order in which sources first stand in the prompt. `rulings`: generate and each read."""
    admitted: dict[str, tuple[str, ...]] = {}
    access: tuple[str, ...] = ()
    for ruling in rulings:
        if ruling.action == "generate":
            access = ruling.policies
        elif ruling.action == "read":
            admitted[split_uid(ruling.resource)[1]] = ruling.policies
    sizes: dict[str, int] = {}
    for message in prompt:
        for segment in message.segments:
            sizes[segment.source] = sizes.get(segment.source, 0) + len(segment.text.encode())
    holders = _holders(request)
    return tuple(
        Material(
            source=source,
            policies=tuple(sorted(set(_policies(source, request, access, admitted, merged)))),
            documents=tuple(holders.get(source.partition(":")[2], ())) if source.startswith(_OF_DOCUMENTS) else (),
            bytes=size,
        )
        for source, size in sizes.items()
    )


def _holders(request: RequestSubmitted) -> Mapping[str, list[int]]:
    """The documents, by their place in the request, that hold each field; ascending."""
    found: dict[str, dict[int, None]] = {}
    for index, document in enumerate(request.documents):
        for piece in document.fields:
            found.setdefault(field_name(document, piece.name), {})[index] = None
    return {name: list(places) for name, places in found.items()}


def _policies(
    source: str,
    request: RequestSubmitted,
    access: tuple[str, ...],
    admitted: Mapping[str, tuple[str, ...]],
    merged: MergedObligations,
) -> tuple[str, ...]:
    """The policies that let a source in; for what stands in the place of something, those that put it there."""
    kind, _, name = source.partition(":")
    match kind:
        case "template":
            return merged.sources("system")
        case "message":
            demoted = request.messages[int(name)].role is Role.SYSTEM
            return (*access, *(merged.sources(CLIENT_SYSTEM) if demoted else ()))
        case "field":
            return admitted[name]
        case "withheld":
            return (*admitted[name], *merged.sources("withheld"))
        case "alias":
            return merged.sources("alias")
        case "redacted":
            return merged.sources("redact_prompt")
        case _:
            return ()
