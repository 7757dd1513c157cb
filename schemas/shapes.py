"""An Avro schema goes in, the same as typed shapes comes out: what the JSON reader and the JSON Schemas are made from.

The only place that says which part of Avro our schemas use: null-unions for what may be absent, no maps, no logical
types, no other unions, and a `doc` on every record, enum and field. Reader and JSON Schemas are made from one tree, so
they cannot disagree about a member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias, cast

from sluicegate.schemas import codec
from sluicegate.schemas.strict_json import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """`string`, `bytes`, `boolean`, `int`, `long` or `double`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Exactly one of `symbols`."""

    name: str
    doc: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """A list."""

    items: "Shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optional:
    """The value or null."""

    value: "Shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A field of a record. `required`: it has no default; else `default` stands where it is left out."""

    name: str
    doc: str
    shape: "Shape"
    required: bool
    default: JsonValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A record with exactly these members."""

    name: str
    doc: str
    members: tuple[Member, ...]


Shape: TypeAlias = Scalar | Choice | Many | Optional | Group
SCALARS = ("string", "bytes", "boolean", "int", "long", "double")


@cache
def shape_of(name: str) -> Group:
    """The shape of the published schema called `name`, such as `RequestSubmitted.v1`.

    Raises:
        KeyError: there is no such schema.
        TypeError: it uses a part of Avro that no schema of ours may use.
    """
    found = _shape(codec.schema(name), {})
    if not isinstance(found, Group):
        raise TypeError(f"`{name}` is no record")
    return found


def _shape(node: object, named: dict[str, Shape]) -> Shape:
    match node:
        case str() if node in named:
            return named[node]
        case str() if node in SCALARS:
            return Scalar(name=node)
        case ["null", other]:
            return Optional(value=_shape(other, named))
        case {"type": "array", "items": items}:
            return Many(items=_shape(items, named))
        case {"type": "enum", "name": str(name), "doc": doc, "symbols": [*symbols]}:
            named[name] = choice = Choice(name=name, doc=str(doc), symbols=tuple(str(each) for each in symbols))
            return choice
        case {"type": "record", "name": str(name), "doc": doc, "fields": [*fields]}:
            members = tuple(_member(field, named) for field in fields)
            named[name] = group = Group(name=name, doc=str(doc), members=members)
            return group
        case _:
            raise TypeError(f"a schema of ours may not use `{node}`")


def _member(field: object, named: dict[str, Shape]) -> Member:
    if not isinstance(field, Mapping):
        raise TypeError("a field of a record is an object")
    required = "default" not in field
    return Member(
        name=str(field["name"]),
        doc=str(field["doc"]),
        shape=_shape(field["type"], named),
        required=required,
        default=None if required else cast(JsonValue, field["default"]),
    )
