"""The published Avro schemas go in, JSON Schemas (draft 2020-12) and the text of every published document come out.

How JSON holds an event, the only place that says it:
- a record is an object with exactly the schema's members; one with a default may be left out, others may not;
- `["null", T]` is T or null; null and left out mean the same;
- `string` is text, `boolean` is true or false, `enum` is one of its symbols as text;
- `int` and `long` are whole numbers of 32 and 64 bits, written without fraction or exponent (a JSON Schema cannot tell
  5.0 from 5; the gate does, and refuses 5.0);
- `double` is a number that fits one;
- `bytes` is base64 with padding (RFC 4648 section 4). RequestSubmitted, the one event that is read from JSON, has none.
"""

import json
from collections.abc import Mapping
from typing import Final

from sluicegate.schemas import codec
from sluicegate.schemas.shapes import Choice, Group, Many, Member, Optional, Scalar, Shape, shape_of
from sluicegate.schemas.strict_json import JsonObject

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DOUBLE_MAX: Final = 1.7976931348623157e308
"""The largest double (IEEE 754, binary64)."""
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def json_schema(name: str) -> JsonObject:
    """The JSON Schema of the published schema called `name`, such as `RequestSubmitted.v1`.

    Raises:
        KeyError: there is no such schema.
    """
    shape = shape_of(name)
    definitions: JsonObject = {}
    document: JsonObject = {
        "$schema": DIALECT,
        "$id": f"urn:sluicegate:json-schema:{name}",
        "title": shape.name,
        **_group(shape, definitions),
    }
    return document | ({"$defs": definitions} if definitions else {})


def schema_documents() -> Mapping[str, str]:
    """The text of every published schema, as Avro and as JSON Schema, by its path under the folder of schemas."""
    avro = {f"avro/{name}.avsc": _text(codec.schema(name)) for name in codec.names()}
    return avro | {f"json/{name}.schema.json": _text(json_schema(name)) for name in codec.names()}


def _text(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _group(group: Group, definitions: JsonObject) -> JsonObject:
    return {
        "description": group.doc,
        "type": "object",
        "properties": {member.name: _member(member, definitions) for member in group.members},
        "required": [member.name for member in group.members if member.required],
        "additionalProperties": False,
    }


def _member(member: Member, definitions: JsonObject) -> JsonObject:
    found: JsonObject = {"description": member.doc, **_value(member.shape, definitions)}
    return found if member.required else found | {"default": member.default}


def _value(shape: Shape, definitions: JsonObject) -> JsonObject:
    match shape:
        case Scalar(name=name):
            return dict(_SCALARS[name])
        case Many(items=items):
            return {"type": "array", "items": _value(items, definitions)}
        case Optional(value=inner):
            return _or_null(_value(inner, definitions))
        case Choice(name=name, doc=doc, symbols=symbols):
            definitions[name] = {"description": doc, "type": "string", "enum": [*symbols]}
            return {"$ref": f"#/$defs/{name}"}
        case Group(name=name):
            definitions.setdefault(name, {})  # takes its place before what it is made of
            definitions[name] = _group(shape, definitions)
            return {"$ref": f"#/$defs/{name}"}


def _or_null(found: JsonObject) -> JsonObject:
    kind = found.get("type")
    if isinstance(kind, str) and "enum" not in found:
        return found | {"type": [kind, "null"]}
    return {"anyOf": [found, {"type": "null"}]}


_SCALARS: Final[Mapping[str, JsonObject]] = {
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "double": {"type": "number", "minimum": -DOUBLE_MAX, "maximum": DOUBLE_MAX},
}
