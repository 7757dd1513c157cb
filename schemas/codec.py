"""Events to bytes and back: Avro in single-object encoding or in Confluent framing, strict; the only place for either.

Single-object encoding (Avro 1.12): `C3 01`, the CRC-64-AVRO fingerprint of the writer's schema in parsing canonical
form (8 bytes, little-endian), the Avro binary. Confluent framing: `00`, the id that a schema registry gave the writer's
schema (4 bytes, big-endian), the Avro binary. Which id stands for which of our schemas comes in as an argument: nothing
here asks a registry, so the same bytes and the same ids always read the same.
"""

import io
import json
import struct
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, TypeVar, cast

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import (
    DecisionMade,
    DirectoryChanged,
    Encodable,
    GenerationFinished,
    PolicyPublished,
    ReleaseMade,
    RequestSubmitted,
    SliceSeal,
    SliceStatement,
)
from sluicegate.schemas.shadow_events import ShadowDecided

SINGLE_OBJECT: Final = b"\xc3\x01"
CONFLUENT: Final = b"\x00"
SCHEMA_ID_MAX: Final = 2**31 - 1
LATEST: Final[Mapping[type[object], str]] = {
    RequestSubmitted: "RequestSubmitted.v1",
    DecisionMade: "DecisionMade.v2",
    GenerationFinished: "GenerationFinished.v1",
    ReleaseMade: "ReleaseMade.v1",
    ShadowDecided: "ShadowDecided.v1",
    PolicyPublished: "PolicyPublished.v2",
    DirectoryChanged: "DirectoryChanged.v1",
    SliceStatement: "SliceStatement.v1",
    SliceSeal: "SliceSeal.v1",
}
Schema = dict[str, object]
E_ = TypeVar("E_", bound=Encodable | ShadowDecided)


def _avro_files() -> dict[str, Schema]:
    folder = resources.files("sluicegate.schemas") / "avro"
    return {
        entry.name.removesuffix(".avsc"): cast(Schema, json.loads(entry.read_text(encoding="utf-8")))
        for entry in folder.iterdir()
        if entry.name.endswith(".avsc")
    }


@cache
def schema(name: str) -> Schema:
    """The published schema called `name`, such as `DecisionMade.v1`.

    Raises:
        KeyError: there is no such schema.
    """
    return _avro_files()[name]


@cache
def names() -> tuple[str, ...]:
    """The names of every published schema, oldest versions included, sorted."""
    return tuple(sorted(_avro_files()))


@cache
def fingerprint_of(name: str) -> bytes:
    """CRC-64-AVRO of the schema's parsing canonical form, 8 bytes little-endian, as it stands in the framing."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema(name)), "CRC-64-AVRO"))


@cache
def _by_fingerprint() -> dict[bytes, str]:
    return {fingerprint_of(name): name for name in names()}


@cache
def _parsed(name: str) -> Schema:
    return cast(Schema, fastavro.parse_schema(schema(name)))


def encode(event: Encodable | ShadowDecided, *, schema_id: int | None = None) -> bytes:
    """The event under the latest version of its schema: in Confluent framing where `schema_id` says under which id a
    registry knows that version, else in single-object encoding.

    Raises:
        ValueError: `schema_id` is no id that a registry gives.
    """
    name = LATEST[type(event)]
    out = io.BytesIO()
    if schema_id is None:
        out.write(SINGLE_OBJECT + fingerprint_of(name))
    elif 0 <= schema_id <= SCHEMA_ID_MAX:
        out.write(CONFLUENT + schema_id.to_bytes(4, "big"))
    else:
        raise ValueError(f"a registry gives ids from 0 to {SCHEMA_ID_MAX}")
    datum: dict[str, object] = msgspec.to_builtins(event, builtin_types=(bytes,))
    # Told which branch of a union is meant, the writer does not try a record's every field first.
    for member, branch in _optional_records(name):
        if datum[member] is not None:
            datum[member] = (branch, datum[member])
    fastavro.schemaless_writer(out, _parsed(name), datum)
    return out.getvalue()


@cache
def _optional_records(name: str) -> tuple[tuple[str, str], ...]:
    """The members of a schema that are a record or null, each with the record's full name."""
    found: list[tuple[str, str]] = []
    for member in cast("list[dict[str, object]]", _parsed(name)["fields"]):
        branches = member["type"]
        records = [each for each in branches if isinstance(each, dict)] if isinstance(branches, list) else []
        found += [(str(member["name"]), str(each["name"])) for each in records if each["type"] == "record"]
    return tuple(found)


def _writer_of(value: bytes, ids: Mapping[int, str]) -> tuple[str, bytes]:
    """The name of the schema that `value` was written under, and its Avro body."""
    if value[:1] == CONFLUENT:
        if not ids:
            raise CodecError(
                "Confluent framing needs a schema registry, and none is configured; use single-object encoding"
            )
        schema_id = confluent_id(value)
        if schema_id is None or schema_id not in ids:
            raise CodecError(
                "the schema id of the Confluent framing belongs to no released schema; register those with "
                "`sluicegate schemas register` and write with the id it prints, without automatic registration"
            )
        return ids[schema_id], value[5:]
    if value[:2] != SINGLE_OBJECT or len(value) < 10:
        raise CodecError(
            "the value does not start as Avro single-object encoding (`c3 01` and a fingerprint); for JSON send the "
            "header `content-type: application/json`"
        )
    writer = _by_fingerprint().get(value[2:10])
    if writer is None:
        raise CodecError(f"unknown schema fingerprint `{value[2:10].hex()}`; publish with a released schema version")
    return writer, value[10:]


def confluent_id(value: bytes | None) -> int | None:
    """The schema id in front of a value in Confluent framing; None for any other value."""
    if not value or value[:1] != CONFLUENT or len(value) < 5:
        return None
    return int.from_bytes(value[1:5], "big")


def schema_of(value: bytes | None, ids: Mapping[int, str]) -> str:
    """The name of the schema that `value` says it was written under; empty where it says none that is known."""
    try:
        return _writer_of(value or b"", ids)[0]
    except CodecError:
        return ""


def decode(value: bytes | None, kind: type[E_], *, ids: Mapping[int, str] | None = None) -> E_:
    """The event of type `kind` that `value` holds, written under any published version of its schema. `ids`: the names
    of our schemas by the ids that a registry gave them; None: Confluent framing is not read.

    Raises:
        CodecError: no value, another framing, an unknown schema, another event, cut or surplus bytes, a value out of
        type.
    """
    if not value:
        raise CodecError("the record has no value; send Avro in single-object encoding")
    writer, binary = _writer_of(value, ids or {})
    if writer.split(".")[0] != kind.__name__:
        raise CodecError(f"a `{writer}` stands where a `{kind.__name__}` is expected")
    body = io.BytesIO(binary)
    try:
        datum = fastavro.schemaless_reader(body, _parsed(writer), _parsed(LATEST[kind]))
    except (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise CodecError(f"the Avro body of `{writer}` is cut or damaged ({type(error).__name__})") from None
    except (struct.error, RecursionError, StopIteration, AssertionError) as error:
        raise CodecError(f"the Avro body of `{writer}` is cut or damaged ({type(error).__name__})") from None
    if body.read(1):
        raise CodecError(f"surplus bytes follow the Avro body of `{writer}`")
    try:
        return msgspec.convert(datum, kind)
    except msgspec.ValidationError:
        raise CodecError(f"the Avro body of `{writer}` holds a value that its schema does not allow") from None
