"""Strict JSON and base64url: bytes in, exactly one reading out; the only place that decodes what a requester signed.

Refused, because two readers could disagree: duplicate keys, NaN and infinities, lone surrogates, bytes that are not
UTF-8, padding, foreign characters and stray trailing bits in base64url (RFC 4648 section 3.5, RFC 7515 section 2).
"""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeAlias, cast

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


class NotStrict(ValueError):
    """The bytes have no single reading; the text never quotes them."""


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("an object names a member twice")
    return found


def _constant(_: str) -> JsonValue:
    raise NotStrict("NaN and infinities are no JSON")


def loads(data: bytes) -> JsonValue:
    """The one value that `data` holds. The caller limits its size.

    Raises:
        NotStrict: `data` is not JSON of exactly one reading, or nested too deep.
    """
    try:
        text = data.decode("utf-8")
        value = cast(JsonValue, json.loads(text, object_pairs_hook=_object, parse_constant=_constant))
        if "\\u" in text:  # only an escape can bring a lone surrogate, which no later encoding would survive
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except NotStrict:
        raise
    except (ValueError, RecursionError):
        raise NotStrict("not strict JSON") from None
    return value


def loads_object(data: bytes) -> JsonObject:
    """The object that `data` holds.

    Raises:
        NotStrict: as `loads`, or the value is no object.
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise NotStrict("not a JSON object")
    return value


def encode_base64url(data: bytes) -> str:
    """Base64url without padding, as JOSE writes it."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: bytes) -> bytes:
    """The bytes of unpadded, canonical base64url.

    Raises:
        NotStrict: padding, characters outside the alphabet, or an encoding that `encode_base64url` would not write.
    """
    try:
        data = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise NotStrict("not base64url") from None
    # b64decode drops foreign characters and trailing bits in silence: only the way back proves there were none.
    if urlsafe_b64encode(data).rstrip(b"=") != text:
        raise NotStrict("not canonical base64url")
    return data
