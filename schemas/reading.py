"""The bytes of a request and its `content-type` go in, the request comes out: the one reader of what producers send.

Three forms, one meaning: Avro in single-object encoding or in Confluent framing (no `content-type`, or one of
`AVRO_TYPES`), and strict JSON (`application/json`). JSON is read against the latest Avro schema: a member that the
schema does not have, a missing one, a number with a fraction or in quotes where a whole one belongs, an enum in other
letters: all refused. A member with a default may be left out, and one that may be null may be null.

The header is not covered by the producer's proof, and need not be: no bytes can be read in two of these forms (`c3 01`
is no UTF-8, `00` no JSON, and no JSON starts with either), so a header that somebody changes can only make a request
unreadable. No error text holds a value or a member name of the request.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import RequestSubmitted
from sluicegate.schemas.records import Record
from sluicegate.schemas.shapes import Choice, Group, Many, Optional, Scalar, Shape, shape_of
from sluicegate.schemas.strict_json import JsonValue, NotStrict, loads

CONTENT_TYPE: Final = "content-type"
JSON_TYPE: Final = "application/json"
AVRO_TYPES: Final = frozenset({"application/avro", "avro/binary"})
CONTENT_TYPE_BYTES_MAX: Final = 200
# RFC 9110, sections 5.6.2 and 8.3.1: a type and its parameters, whose values are tokens or quoted.
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'[ \t]*;[ \t]*({_WORD})=({_WORD}|"[^"\\]*")', re.ASCII)
_TYPE: Final = re.compile(rf"[ \t]*({_WORD}/{_WORD})((?:{_PARAMETER.pattern})*)[ \t]*", re.ASCII)
_BITS: Final = {"int": 32, "long": 64}


def content_types(record: Record) -> tuple[bytes, ...]:
    """The values of every `content-type` header of the record, however its name is spelled."""
    return tuple(value or b"" for name, value in record.headers if name.lower() == CONTENT_TYPE)


def read_request(record: Record, ids: Mapping[int, str] | None = None) -> RequestSubmitted:
    """The request that the record holds. `ids`: which schema a registry knows under which id, as it said at start.

    Raises:
        CodecError: it cannot be read; the text says what to do and holds no value of the request.
    """
    return read_request_value(record.value, content_types(record), ids)


def read_request_value(
    value: bytes | None, types: Iterable[bytes], ids: Mapping[int, str] | None = None
) -> RequestSubmitted:
    """As `read_request`, from a value and the values of its `content-type` headers as the audit keeps them.

    Raises:
        CodecError: as `read_request`.
    """
    if not _is_json(tuple(types)):
        return codec.decode(value, RequestSubmitted, ids=ids)
    if not value:
        raise CodecError("the record has no value; send a JSON object")
    return read_json(value)


def read_json(value: bytes) -> RequestSubmitted:
    """The request that a JSON body holds.

    Raises:
        CodecError: it is no strict JSON, or not what the schema says.
    """
    name = codec.LATEST[RequestSubmitted]
    try:
        found = loads(value)
    except NotStrict as error:
        raise CodecError(f"the body is not strict JSON ({error}); send one JSON object in UTF-8") from None
    try:
        return msgspec.convert(_read(found, shape_of(name), ""), RequestSubmitted)
    except msgspec.ValidationError:
        raise CodecError(f"the JSON body holds a value that `{name}` does not allow") from None


def _is_json(types: tuple[bytes, ...]) -> bool:
    if not types:
        return False
    if len(types) > 1:
        raise CodecError(f"the record has {len(types)} `{CONTENT_TYPE}` headers; send one, or none for Avro")
    found = _TYPE.fullmatch(types[0].decode("latin-1")) if len(types[0]) <= CONTENT_TYPE_BYTES_MAX else None
    media_type = found[1].lower() if found else ""
    if found is None or (media_type != JSON_TYPE and media_type not in AVRO_TYPES):
        known = ", ".join(f"`{each}`" for each in (JSON_TYPE, *sorted(AVRO_TYPES)))
        raise CodecError(f"the `{CONTENT_TYPE}` is none that is read here; send one of {known}, or none for Avro")
    for name, text in _PARAMETER.findall(found[2]):
        if name.lower() == "charset" and text.strip('"').lower() not in {"utf-8", "utf8"}:
            raise CodecError(f"the `{CONTENT_TYPE}` names a character set; send the body in UTF-8")
    return media_type == JSON_TYPE


def _read(value: JsonValue, shape: Shape, where: str) -> JsonValue:
    """The value as `msgspec.convert` takes it; `where` is the path to it, made of names of the schema and of places."""
    match shape:
        case Optional(value=inner):
            return None if value is None else _read(value, inner, where)
        case Scalar(name=name):
            return _scalar(value, name, where)
        case Choice(symbols=symbols):
            if not isinstance(value, str) or value not in symbols:
                raise _wrong(where, f"one of {', '.join(f'`{each}`' for each in symbols)}")
            return value
        case Many(items=items):
            if not isinstance(value, list):
                raise _wrong(where, "a list")
            return [_read(item, items, f"{where}[{index}]") for index, item in enumerate(value)]
        case Group():
            if not isinstance(value, dict):
                raise _wrong(where, "an object")
            return _members(value, shape, where)


def _members(value: dict[str, JsonValue], group: Group, where: str) -> JsonValue:
    if not value.keys() <= {member.name for member in group.members}:
        known = ", ".join(f"`{member.name}`" for member in group.members)
        raise CodecError(f"{_at(where)} has a member that is not one of {known}; leave it out")
    lacking = [member.name for member in group.members if member.required and member.name not in value]
    if lacking:
        raise CodecError(f"{_at(where)} lacks {', '.join(f'`{name}`' for name in lacking)}; add what is missing")
    prefix = f"{where}." if where else ""
    return {
        member.name: _read(value[member.name], member.shape, prefix + member.name)
        for member in group.members
        if member.name in value
    }


def _scalar(value: JsonValue, name: str, where: str) -> JsonValue:
    match name:
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "int" | "long" if isinstance(value, int) and not isinstance(value, bool):
            if value.bit_length() < _BITS[name] or value == -(1 << (_BITS[name] - 1)):
                return value
        case "double" if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                pass
    raise _wrong(where, _WANTED[name])


_WANTED: Final = {
    "string": "a text",
    "boolean": "`true` or `false`",
    "int": "a whole number of 32 bits, without quotes or a fraction",
    "long": "a whole number of 64 bits, without quotes or a fraction",
    "double": "a number, without quotes",
    "bytes": "a text in base64",
}


def _wrong(where: str, wanted: str) -> CodecError:
    return CodecError(f"{_at(where)} must be {wanted}")


def _at(where: str) -> str:
    return f"`{where}`" if where else "the JSON body"
