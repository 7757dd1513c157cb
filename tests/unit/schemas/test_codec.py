"""The codec: events survive the way through bytes; every other bytes get a `CodecError` that says what is wrong."""

import contextlib
import io
import json
from pathlib import Path

import fastavro
import msgspec
import pytest
from fastavro.utils import generate_many
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import (
    DecisionMade,
    Document,
    FieldText,
    Granted,
    Identity,
    Message,
    Parameters,
    PolicyVersion,
    RequestSubmitted,
    Role,
    Source,
    Verdict,
)

REQUEST = RequestSubmitted(
    request_id="r1",
    model="smollm2",
    purpose="ticket",
    messages=(Message(role=Role.USER, content="hello"),),
    documents=(Document(dataset="tickets", document_id="7", fields=(FieldText(name="text", text="brake"),)),),
    parameters=Parameters(max_tokens=5, temperature=0.5, stop=("x",)),
)
TEXT = st.text(max_size=20)


@given(
    st.builds(
        RequestSubmitted,
        request_id=TEXT,
        model=TEXT,
        purpose=TEXT,
        messages=st.lists(st.builds(Message, role=st.sampled_from(Role), content=TEXT), max_size=3).map(tuple),
        documents=st.just(()),
        tools=st.lists(TEXT, max_size=2).map(tuple),
        parameters=st.builds(
            Parameters,
            max_tokens=st.none() | st.integers(-(2**31), 2**31 - 1),
            temperature=st.none() | st.floats(allow_nan=False),
            seed=st.none() | st.integers(-(2**63), 2**63 - 1),
            stop=st.lists(TEXT, max_size=2).map(tuple),
        ),
        deadline_ms=st.none() | st.integers(0, 2**63 - 1),
    )
)
def test_a_request_comes_back_as_it_was(request_: RequestSubmitted) -> None:
    assert codec.decode(codec.encode(request_), RequestSubmitted) == request_


@pytest.mark.parametrize("kind", codec.LATEST)
def test_whatever_the_schema_allows_can_be_read(kind: type[RequestSubmitted]) -> None:
    name = codec.LATEST[kind]
    for datum in generate_many(codec.schema(name), 20):
        for each in (datum, datum.get("active"), datum.get("shadow")):
            if each and "code" in each:
                each["code"] = "POISON"
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(codec.schema(name)), datum)
        value = codec.SINGLE_OBJECT + codec.fingerprint_of(name) + out.getvalue()
        assert codec.encode(codec.decode(value, kind)) == value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "no value"),
        (b"", "no value"),
        (b"{}", "does not start as Avro"),
        (b"\x00\x00\x00\x00\x01abc", "schema registry"),
        (b"\xc3\x01\x00", "does not start as Avro"),
        (b"\xc3\x01" + b"\x00" * 8 + b"abc", "unknown schema fingerprint `0000000000000000`"),
        (codec.encode(REQUEST)[:-3], "cut or damaged"),
        (codec.encode(REQUEST) + b"\x00", "surplus bytes"),
    ],
)
def test_bad_bytes_are_refused_by_name(value: bytes | None, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        codec.decode(value, RequestSubmitted)


def test_an_event_of_another_kind_is_refused() -> None:
    with pytest.raises(CodecError, match=r"a `RequestSubmitted.v1` stands where a `DecisionMade` is expected"):
        codec.decode(codec.encode(REQUEST), DecisionMade)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3), st.integers(0, 10_000))
def test_damage_never_gets_past_the_codec(position: int, patch: bytes, keep: int) -> None:
    value = bytearray(codec.encode(REQUEST))
    start = 10 + position % (len(value) - 10)
    value[start : start + len(patch)] = patch
    damaged = bytes(value[: 10 + keep % (len(value) - 9)])
    with contextlib.suppress(CodecError):  # nothing else may come out, and what decodes is what would be encoded
        found = codec.decode(damaged, RequestSubmitted)
        assert codec.decode(codec.encode(found), RequestSubmitted) == found


RELEASED = Path(__file__).parent / "released_schemas.json"


def test_published_schemas_never_change() -> None:
    """A released version's fingerprint is frozen: a change is a new version beside it."""
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    now = {name: codec.fingerprint_of(name).hex() for name in codec.names()}
    assert {name: now.get(name) for name in released} == released
    assert set(now) == set(released), "a new schema version is released by adding its fingerprint here"


@pytest.mark.parametrize("name", codec.names())
def test_the_latest_version_reads_every_older_one(name: str) -> None:
    latest = next(each for each in codec.LATEST.values() if each.split(".")[0] == name.split(".")[0])
    assert_readable(codec.schema(name), codec.schema(latest))


def assert_readable(writer: dict[str, object], reader: dict[str, object]) -> None:
    for datum in generate_many(writer, 5):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(writer), datum)
        fastavro.schemaless_reader(
            io.BytesIO(out.getvalue()), fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        )


def test_the_compatibility_check_can_fail() -> None:
    """Positive control: a field added without a default cannot read what is there."""
    old = codec.schema("RequestSubmitted.v1")
    fields = old["fields"]
    assert isinstance(fields, list)
    with_default = {**old, "fields": [*fields, {"name": "new", "type": "string", "default": ""}]}
    without = {**old, "fields": [*fields, {"name": "new", "type": "string"}]}
    assert_readable(old, with_default)
    with pytest.raises(fastavro.read.SchemaResolutionError):
        assert_readable(old, without)


def undocumented(node: object, where: str) -> list[str]:
    if isinstance(node, list):
        return [each for item in node for each in undocumented(item, where)]
    if not isinstance(node, dict):
        return []
    found = [] if "doc" in node or node.get("type") == "array" else [where]
    for field in node.get("fields", []):
        name = f"{where}.{field['name']}"
        found += [name] if not field.get("doc") else []
        found += undocumented(field["type"], name)
    return found + undocumented(node.get("items"), where)


@pytest.mark.parametrize("name", codec.names())
def test_every_field_is_documented(name: str) -> None:
    assert undocumented(codec.schema(name), name) == []


def test_the_documentation_check_can_fail() -> None:
    assert undocumented({"type": "record", "doc": "x", "fields": [{"name": "a", "type": "int"}]}, "X") == ["X.a"]


def test_fingerprints_are_the_specifications() -> None:
    """Avro 1.12: CRC-64-AVRO of `"int"` is 7275d51a3f395c8f, written little-endian in the framing."""
    assert fastavro.schema.fingerprint('"int"', "CRC-64-AVRO") == "8f5c393f1ad57572"


IDENTITY = Identity(
    principal='User::"ana"',
    actor='Service::"app"',
    proof_issuer="app",
    proof_id="A" * 22,
    proof_issued_at_s=1,
    proof_key_id="k",
    token_issuer="idp",
)
VERSION = PolicyVersion(
    position=1, root_version=1, bundle_version=2, bundle_digest="b", directory_version=3, directory_digest="d"
)
GRANTED = Granted(max_tokens=64, temperature=0.0, top_p=1.0, top_k=1, seed=7, stop=("x",))


@given(
    st.builds(
        DecisionMade,
        decision_id=TEXT,
        source=st.just(Source(offset=1, count=1, digest=b"x", timestamp_ms=2)),
        time_ms=st.just(3),
        verdict=st.sampled_from(Verdict),
        code=st.sampled_from(Code),
        check=st.just(4),
        reason=st.none() | TEXT,
        identity=st.sampled_from([None, IDENTITY]),
        policy=st.sampled_from([None, VERSION]),
        granted=st.sampled_from([None, GRANTED]),
    )
)
def test_the_writer_is_told_the_branch_that_it_would_find(decision: DecisionMade) -> None:
    out = io.BytesIO()
    datum = msgspec.to_builtins(decision, builtin_types=(bytes,))
    fastavro.schemaless_writer(out, codec.schema(codec.LATEST[DecisionMade]), datum)
    assert codec.encode(decision)[10:] == out.getvalue()
    assert codec.decode(codec.encode(decision), DecisionMade) == decision
