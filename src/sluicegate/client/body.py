"""What a caller asks goes in, the bytes of its request come out: the same for every send of it, so that the gate sees
one request however often it is sent.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from sluicegate.schemas import codec
from sluicegate.schemas.events import Message, RequestSubmitted, Role
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.reading import CONTENT_TYPE, JSON_TYPE
from sluicegate.schemas.records import Headers
from sluicegate.schemas.strict_json import NotStrict, decode_base64url

_JSON: Final[Headers] = ((CONTENT_TYPE, JSON_TYPE.encode()),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request as every send of it carries it. `key` is the principal's uid; the token is never shown."""

    key: bytes
    value: bytes
    headers: Headers
    token: str | None = field(repr=False)


def body_of(request: RequestSubmitted, *, key: str, token: str | None, wire_format: Literal["avro", "json"]) -> Body:
    """The request in Avro's single-object encoding, or as JSON."""
    if wire_format == "avro":
        return Body(key=key.encode(), value=codec.encode(request), headers=(), token=token)
    return Body(key=key.encode(), value=msgspec.json.encode(request), headers=_JSON, token=token)


def messages_of(messages: Sequence[Message] | None, text: str | None) -> tuple[Message, ...]:
    """The conversation: the messages, or one message of the user.

    Raises:
        ValueError: both are given, or neither is.
    """
    if (messages is None) == (text is None):
        raise ValueError("give either `messages` or `text`")
    return tuple(messages or ()) if text is None else (Message(role=Role.USER, content=text),)


def principal_of(principal: str | None, token: str | None, *, service: str) -> str:
    """The uid of who asks: the person named, or else the subject of the token, or else the service itself.

    `principal`: a person's id, or a uid in full, as `User::"ana"`.

    Raises:
        ValueError: the token has no subject to be read; name the principal.
    """
    if principal is not None:
        return principal if '::"' in principal else entity_uid("User", principal)
    if token is None:
        return entity_uid("Service", service)
    try:
        claims = json.loads(decode_base64url(token.split(".")[1].encode("ascii")))
        subject = claims["sub"]
    except (NotStrict, ValueError, IndexError, KeyError, TypeError):
        subject = None
    if not isinstance(subject, str) or not subject:
        raise ValueError("the token names no `sub`; give `principal`")
    return entity_uid("User", subject)
