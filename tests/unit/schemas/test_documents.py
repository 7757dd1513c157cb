"""The documents that producers build from are made from the schemas, committed, and true of what is sent."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import msgspec
import pytest
import yaml
from fastavro.utils import generate_many

from sluicegate.commands.schemas import CONTRACT, documents
from sluicegate.enforcer.identity import PROOF_HEADER, TOKEN_HEADER
from sluicegate.enforcer.seal import SEAL_HEADER
from sluicegate.schemas import codec, shapes
from sluicegate.schemas.documents import DIALECT, json_schema
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.schemas.reading import CONTENT_TYPE, read_json
from sluicegate.schemas.request_reply import EXAMPLE_RELEASE, PATH
from sluicegate.streams.topology import Topology

FOLDER = Path(__file__).resolve().parent.parent.parent.parent / "schemas"
MADE = {"avro", "json", "asyncapi"}


def committed(folder: Path) -> dict[str, str]:
    files = (path for name in MADE for path in (folder / name).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_committed_documents_are_what_the_code_makes() -> None:
    differ = {name for name, text in documents().items() if committed(FOLDER).get(name) != text}
    assert differ == set(), "run `sluicegate schemas write schemas`"
    assert set(committed(FOLDER)) == set(documents()), "a document that nothing makes"
    assert len(documents()) == 2 * len(codec.names()) + 1


@pytest.mark.parametrize("name", codec.names())
def test_json_schemas_are_valid_and_documented(name: str) -> None:
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    groups = [schema, *schema.get("$defs", {}).values()]
    assert all(group["description"] for group in groups)
    assert all(member["description"] for group in groups for member in group.get("properties", {}).values())


@pytest.mark.parametrize("kind", codec.LATEST)
def test_json_schemas_hold_of_what_the_avro_schemas_allow(kind: Any) -> None:
    """The JSON form of an event, as `msgspec` writes it, is valid; with a member more, or less, it is not."""
    name = codec.LATEST[kind]
    validator = jsonschema.Draft202012Validator(json_schema(name))
    for datum in generate_many(codec.schema(name), 20):
        for each in (datum, datum.get("active"), datum.get("shadow")):
            if each and "code" in each:
                each["code"] = "POISON"
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(codec.schema(name)), datum)
        event = codec.decode(codec.SINGLE_OBJECT + codec.fingerprint_of(name) + out.getvalue(), kind)
        body = json.loads(msgspec.json.encode(event))
        assert list(validator.iter_errors(body)) == []
        assert not validator.is_valid(body | {"another": 1})
        lacking = {key: value for key, value in body.items() if key != next(iter(json_schema(name)["required"]))}
        assert not validator.is_valid(lacking)


@pytest.mark.parametrize(
    ("text", "valid"), [("", True), ("AA==", True), ("AAA=", True), ("AAAA", True), ("AA", False), ("A-A=", False)]
)
def test_bytes_are_base64(text: str, valid: bool) -> None:
    release = json.loads(msgspec.json.encode(EXAMPLE_RELEASE))
    release["source"]["digest"] = text
    assert jsonschema.Draft202012Validator(json_schema("ReleaseMade.v1")).is_valid(release) is valid
    if valid:
        assert base64.b64decode(text, validate=True) == msgspec.convert(release, ReleaseMade).source.digest


@pytest.mark.parametrize(
    "part",
    [
        {"type": "map", "values": "string"},
        ["string", "null"],
        ["null", "string", "int"],
        "float",
        {"type": "fixed", "name": "F", "size": 4},
        {"type": "enum", "name": "E", "symbols": ["A"]},
    ],
)
def test_a_part_of_avro_that_json_does_not_know_is_refused(part: object, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "record", "name": "X", "doc": "x", "fields": [{"name": "a", "doc": "a", "type": part}]}
    monkeypatch.setattr(codec, "schema", lambda _: schema)
    with pytest.raises(TypeError, match="may not use"):
        shapes.shape_of.__wrapped__("X.v1")


# The AsyncAPI document.

DOCUMENT: dict[str, Any] = yaml.safe_load(documents()[PATH])


def example(message: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["messages"][message]["examples"][0]
    return found


def references(node: object) -> list[str]:
    if isinstance(node, list):
        return [found for each in node for found in references(each)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for each in node.values() for found in references(each)]


def dangling(document: dict[str, Any]) -> list[str]:
    faults = []
    for reference in references(document):
        path, _, pointer = reference.partition("#")
        if path and not (FOLDER / "asyncapi" / path).resolve().is_file():
            faults.append(reference)
        node: Any = document if not path else {}
        for part in pointer.split("/")[1:]:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        if not path and not node:
            faults.append(reference)
    return faults


def test_every_reference_leads_somewhere() -> None:
    assert len(references(DOCUMENT)) > 25
    assert dangling(DOCUMENT) == []
    assert dangling({"a": {"$ref": "#/b/c"}, "b": {}, "d": {"$ref": "../avro/None.v1.avsc"}}) == [
        "#/b/c",
        "../avro/None.v1.avsc",
    ]


def test_the_document_names_topics_headers_and_schemas_as_the_code_does() -> None:
    topology = Topology(tenant="heron", partitions=1)
    names = {"tenant": "heron", "application": "desk"}
    found = {name: channel["address"].format(**names) for name, channel in DOCUMENT["channels"].items()}
    assert found == {
        "requests": topology.requests,
        "replies": topology.reply("desk"),
        "refusals": topology.refusals,
    }
    traits = DOCUMENT["components"]["messageTraits"]
    assert set(traits["requestHeaders"]["headers"]["properties"]) == {PROOF_HEADER, TOKEN_HEADER, CONTENT_TYPE}
    assert set(traits["replyHeaders"]["headers"]["properties"]) == {SEAL_HEADER}
    files = {reference for reference in references(DOCUMENT) if not reference.startswith("#")}
    assert files == {
        "../avro/RequestSubmitted.v1.avsc",
        "../avro/ReleaseMade.v1.avsc",
        "../json/RequestSubmitted.v1.schema.json",
    }
    operations = DOCUMENT["operations"]
    assert operations["submitRequest"]["channel"]["$ref"] == "#/channels/requests"
    assert operations["submitRequest"]["reply"]["channel"]["$ref"] == "#/channels/replies"


def test_the_examples_are_what_the_gate_reads() -> None:
    shown = example("requestJson")
    request = read_json(json.dumps(shown["payload"]).encode())
    assert codec.decode(codec.encode(request), RequestSubmitted) == request
    headers = DOCUMENT["components"]["messageTraits"]["requestHeaders"]["headers"]
    jsonschema.Draft202012Validator(headers).validate(shown["headers"])
    assert not jsonschema.Draft202012Validator(headers).is_valid({})
    assert not jsonschema.Draft202012Validator(headers).is_valid({PROOF_HEADER: "no jws"})
    for name in ("requestAvro", "requestConfluent"):
        assert example(name)["payload"] == shown["payload"]
    for name in ("releaseAvro", "releaseConfluent"):
        jsonschema.Draft202012Validator(json_schema("ReleaseMade.v1")).validate(example(name)["payload"])


def test_the_document_has_no_aliases_and_the_contracts_limits() -> None:
    text = documents()[PATH]
    assert re.search(r"[&*]id\d", text) is None
    assert f"maxLength: {CONTRACT.proof_bytes_max}\n" in text
