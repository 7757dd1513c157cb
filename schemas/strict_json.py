"""Strict JSON and base64url: bytes in, exactly one reading out; the only place that decodes what a requester signed.

Refused, because two readers could disagree, or one machine today and another tomorrow: duplicate keys, NaN, infinities
and numbers that overflow to one, lone surrogates, bytes that are not UTF-8, nesting or digits without end; padding,
foreign characters and stray trailing bits in base64url (RFC 4648 section 3.5, RFC 7515 section 2).
"""

import binascii
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, TypeAlias, cast

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

DEPTH_MAX: Final = 64
"""Objects and lists inside each other. The interpreter's own limit depends on who calls, so it decides nothing."""
INTEGER_CHARACTERS_MAX: Final = 320
"""A whole number that fits a double has 309 digits at most; the interpreter's limit can be set from outside."""
# A text that never ends is one too: otherwise each escaped quote in it would be tried as the start of the next.
_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)


class NotStrict(ValueError):
    """The bytes have no single reading; the text never quotes them."""


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("an object names a member twice")
    return found


def _constant(_: str) -> JsonValue:
    raise NotStrict("NaN and infinities are no JSON")


def _integer(digits: str) -> JsonValue:
    if len(digits) > INTEGER_CHARACTERS_MAX:
        raise NotStrict("a number has too many digits")
    return int(digits)


def _float(digits: str) -> JsonValue:
    value = float(digits)
    if math.isinf(value):
        raise NotStrict("a number is too large")
    return value


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for found in _MARK.finditer(data):  # step by step, so that other threads run while a directory is read
        mark = data[found.start()]
        if mark in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise NotStrict("nested too deep")
        elif mark in b"]}":
            depth -= 1


def loads(data: bytes) -> JsonValue:
    """The one value that `data` holds. The caller limits its size.

    Raises:
        NotStrict: `data` is not JSON of exactly one reading, or nested deeper than `DEPTH_MAX`.
    """
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = cast(JsonValue, _DECODER.decode(text))
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
