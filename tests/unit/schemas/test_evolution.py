"""Schemas evolve so that what was written stays readable: each rule of Avro's resolution that could break it, held."""

import io
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import fastavro
import pytest
from fastavro.utils import generate_many

from sluicegate.schemas import codec, shapes
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted

NUMBERS = {"int": {"int", "long", "double"}, "long": {"long", "double"}}


def breaks(writer: Any, reader: Any, where: str = "") -> list[str]:
    """Why `reader` cannot read everything that `writer` writes (Avro 1.12, "Schema Resolution"), and what our own rules
    forbid on top: a member that is dropped, for a later version could give its name another meaning.
    """
    match writer, reader:
        case list(), list():
            return [fault for each in writer for fault in breaks_union(each, reader, where)]
        case _, list():
            return breaks_union(writer, reader, where)
        case {"type": "array"}, {"type": "array"}:
            return breaks(writer["items"], reader["items"], where + "[]")
        case {"type": "enum"}, {"type": "enum"}:
            gone = set(writer["symbols"]) - set(reader["symbols"])
            return [f"{where}: symbols are gone: {sorted(gone)}"] if gone else []
        case {"type": "record"}, {"type": "record"}:
            return breaks_record(writer, reader, where)
        case str(), str() if reader in NUMBERS.get(writer, {writer}):
            return []
        case _:
            return [f"{where}: another type"]


def breaks_union(writer: Any, branches: list[Any], where: str) -> list[str]:
    found = [breaks(writer, branch, where) for branch in branches]
    return [] if [] in found else max(found, key=len)


def breaks_record(writer: Any, reader: Any, where: str) -> list[str]:
    faults = [] if writer["name"] == reader["name"] else [f"{where}: another record"]
    old = {field["name"]: field for field in writer["fields"]}
    new = {field["name"]: field for field in reader["fields"]}
    faults += [f"{where}.{name}: dropped" for name in old if name not in new]
    faults += [
        f"{where}.{name}: new without a default" for name in new if name not in old and "default" not in new[name]
    ]
    for name in old.keys() & new.keys():
        faults += breaks(old[name]["type"], new[name]["type"], f"{where}.{name}")
        if "default" in old[name] and "default" not in new[name]:
            faults.append(f"{where}.{name}: lost its default, which JSON relies on")
    return sorted(faults)


def versions(names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.split(".")[0], []).append(name)
    return {kind: sorted(each, key=lambda name: int(name.rsplit(".v")[-1])) for kind, each in found.items()}


def test_every_version_is_read_by_every_later_one() -> None:
    kinds = versions(codec.names())
    assert {kind.__name__ for kind in codec.LATEST} == set(kinds)
    for found in kinds.values():
        for old, new in [*combinations(found, 2), *((each, each) for each in found)]:
            assert breaks(codec.schema(old), codec.schema(new), old) == []
    assert {kind: found[-1] for kind, found in kinds.items()} == {k.__name__: v for k, v in codec.LATEST.items()}


FIELDS: list[dict[str, Any]] = [
    {"name": "a", "type": "int", "doc": "a"},
    {"name": "b", "type": ["null", "string"], "default": None, "doc": "b"},
    {"name": "c", "type": {"type": "enum", "name": "E", "doc": "e", "symbols": ["X", "Y"]}, "doc": "c"},
]


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "doc": "r", "fields": list(fields)}


def other(index: int, **members: Any) -> dict[str, Any]:
    return record(*(field | members if place == index else field for place, field in enumerate(FIELDS)))


@pytest.mark.parametrize(
    ("reader", "fault"),
    [
        (record(*FIELDS), None),
        (record(*FIELDS, {"name": "d", "type": "string", "default": "", "doc": "d"}), None),
        (other(0, type="long"), None),
        (other(0, type="double"), None),
        (other(0, type=["null", "int"], default=None), None),
        (other(2, type={"type": "enum", "name": "E", "symbols": ["X", "Y", "Z"]}), None),
        (record(*FIELDS, {"name": "d", "type": "string", "doc": "d"}), ".d: new without a default"),
        (record(*FIELDS[1:]), ".a: dropped"),
        (other(0, type="string"), ".a: another type"),
        (other(1, type="string"), ".b: another type"),
        (other(1, type=["null", "int"]), ".b: another type"),
        (other(2, type={"type": "enum", "name": "E", "symbols": ["X"]}), ".c: symbols are gone: ['Y']"),
        (record(FIELDS[0], {"name": "b", "type": ["null", "string"], "doc": "b"}, FIELDS[2]), ".b: lost its default"),
        (record(*FIELDS) | {"name": "S"}, ": another record"),
    ],
)
def test_the_check_finds_what_breaks(reader: dict[str, Any], fault: str | None) -> None:
    """Positive controls: each rule is seen to fail, and each change that is allowed is seen to pass."""
    found = breaks(record(*FIELDS), reader)
    assert found == [] if fault is None else found[0].startswith(fault)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A version 0 of requests and releases: without the members that were added with a default since, `int` for `long`
    and fewer symbols.
    """
    files = codec._avro_files()
    request = codec.schema("RequestSubmitted.v1")
    early = {
        **request,
        "fields": [field for field in request["fields"] if field["name"] not in {"tools", "deadline_ms"}],
    }
    release = codec.schema("ReleaseMade.v1")
    fields = [field for field in release["fields"] if field["name"] != "retry_after_ms"]
    fields = [field | {"type": ["null", "int"]} if field["name"] == "request_offset" else field for field in fields]
    old = {"RequestSubmitted.v0": early, "ReleaseMade.v0": {**release, "fields": fields}}
    monkeypatch.setattr(codec, "_avro_files", lambda: files | old)
    for cached in (codec.schema, codec.names, codec.fingerprint_of, codec._by_fingerprint, codec._parsed):
        cached.cache_clear()
    yield old
    monkeypatch.undo()
    for cached in (codec.schema, codec.names, codec.fingerprint_of, codec._by_fingerprint, codec._parsed):
        cached.cache_clear()
    shapes.shape_of.cache_clear()


@pytest.mark.parametrize("framed", [False, True])
def test_the_codec_resolves_an_older_version_to_the_latest(older: dict[str, Any], framed: bool) -> None:
    assert codec.fingerprint_of("RequestSubmitted.v0") != codec.fingerprint_of("RequestSubmitted.v1")
    for kind, name in ((RequestSubmitted, "RequestSubmitted.v0"), (ReleaseMade, "ReleaseMade.v0")):
        assert breaks(older[name], codec.schema(codec.LATEST[kind]), name) == []
        for datum in generate_many(older[name], 20):
            if "code" in datum:
                datum["code"] = "POISON"
            out = io.BytesIO()
            fastavro.schemaless_writer(out, fastavro.parse_schema(older[name]), datum)
            front = b"\0\0\0\0\x05" if framed else codec.SINGLE_OBJECT + codec.fingerprint_of(name)
            found = codec.decode(front + out.getvalue(), kind, ids={5: name})
            assert found.request_id == datum["request_id"]
            if isinstance(found, RequestSubmitted):
                assert (found.tools, found.deadline_ms) == ((), None)
                assert found.parameters.seed == datum["parameters"]["seed"]
            else:
                assert (found.retry_after_ms, found.request_offset) == (None, datum["request_offset"])
