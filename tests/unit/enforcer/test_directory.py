"""Entities conform to the schema, stand once, and refer to nothing that is not there."""

import json
from types import SimpleNamespace

import cedarpy
import pytest

from sluicegate.enforcer.bundle import digest_of
from sluicegate.enforcer.directory import entity_types, load_directory, split_uid
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import entity_uid


def entity(kind, name, attrs=None, parents=()):
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attrs or {},
        "parents": [{"type": t, "id": i} for t, i in parents],
    }


def reference(kind, name):
    return {"__entity": {"type": kind, "id": name}}


def user(name, role="support", purposes=("ticket",)):
    attrs = {"onLeave": False, "purposes": [reference("Purpose", purpose) for purpose in purposes]}
    return entity("User", name, attrs, [("Role", role)])


def field(name, dataset="tickets", parent="tickets", field_class="open"):
    return entity(
        "Field", name, {"dataset": reference("Dataset", dataset)}, [("Dataset", parent), ("FieldClass", field_class)]
    )


TICKETS = entity("Dataset", "tickets", {"labelledBy": []})
PEOPLE = entity("Dataset", "people", {"labelledBy": []})


def content(*entities, **more):
    return json.dumps({"entities": list(entities), **more}).encode()


def test_example_loads(heron, heron_directory):
    directory = heron.directory
    assert len(directory.uids) == 31
    assert directory.has('User::"ana.support"')
    assert directory.has('Field::"people.salary"')
    assert not directory.has('User::"mallory"')
    assert not directory.has("ana.support")
    assert directory.digest == digest_of(heron_directory)


def test_small_ones_load(heron):
    assert load_directory(content(), heron.bundle).uids == frozenset()
    whole = content(TICKETS, field("tickets.text"), user('o"hara\\'), service_keys=[], issuers=[])
    assert load_directory(whole, heron.bundle).has('User::"o\\"hara\\\\"')


@pytest.mark.parametrize(
    ("entities", "wanted"),
    [
        ([user("ana"), user("ana")], 'User::"ana": stands twice'),
        ([user("ana"), user("ana", role="finance")], 'User::"ana": stands twice'),
        ([user("ana", role="suport")], 'User::"ana": entity does not conform'),
        ([user("ana", purposes=("tickets",))], 'User::"ana": entity does not conform'),
        ([entity("User", "ana", {"onLeave": False}, [])], 'User::"ana": entity does not conform'),
        ([entity("Person", "ana")], 'Person::"ana"'),
        ([entity("Action", "generate")], 'Action::"generate"'),
        ([entity("Role", "suport")], 'Role::"suport"'),
        ([field("tickets.text")], 'Dataset::"tickets", which is nowhere'),
        ([TICKETS, field("tickets.text", parent="invoices")], 'Dataset::"invoices", which is nowhere'),
        ([TICKETS, field("tickets.text", field_class="opened")], 'Field::"tickets.text": entity does not conform'),
        ([entity("Dataset", "x", {"labelledBy": [reference("Service", "gone")]})], 'Service::"gone", which is nowhere'),
        # The engine also takes a reference in its short form, so that must be followed too.
        (
            [entity("Dataset", "x", {"labelledBy": [{"type": "Service", "id": "gone"}]})],
            'Service::"gone", which is nowhere',
        ),
        ([TICKETS, PEOPLE, field("tickets.text", parent="people")], "must be named DATASET.FIELD"),
        ([TICKETS, PEOPLE, field("tickets.text", dataset="people", parent="people")], "must be named DATASET.FIELD"),
        ([TICKETS, field("tickets.")], "must be named DATASET.FIELD"),
        ([entity("Dataset", "a.b", {"labelledBy": []})], "a dataset's id holds no `.`"),
        ([{**user("ana"), "note": 1}], "entity 1: needs `uid`"),
        ([user("")], "entity 1: needs `uid`"),
        ([{"uid": 'User::"ana"', "attrs": {}, "parents": []}], "entity 1: needs `uid`"),
        (["x"], "must be a list of Cedar entities"),
    ],
)
def test_wrong_entity(heron, entities, wanted):
    with pytest.raises(InvalidDirectory) as caught:
        load_directory(content(*entities), heron.bundle)
    assert any(wanted in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b"{}", "`entities` must be a list"),
        (b'{"entities": [], "entities": []}', "twice"),
        (b'{"entities": [], "keys": []}', "unknown key `keys`"),
        (b'{"entities": {}}', "`entities` must be a list"),
        (b'{"entities": ' + b"[" * 100_000, "must be a JSON object"),
    ],
)
def test_wrong_document(heron, text, wanted):
    with pytest.raises(InvalidDirectory) as caught:
        load_directory(text, heron.bundle)
    assert wanted in str(caught.value)


@pytest.mark.parametrize("name", ["ana", "", 'o"hara', "back\\slash", 'a"::"b', "line\nfeed", "\\\\"])
def test_uid_there_and_back(name):
    assert split_uid(entity_uid("A::B", name)) == ("A::B", name)


@pytest.mark.parametrize(
    "uid", ["", "ana", 'User::ana"', 'User::"ana', 'User::"a"b"', '::"ana"', 'User::"\\x"', '1::"a"']
)
def test_no_uid(uid):
    with pytest.raises(ValueError, match="no entity uid"):
        split_uid(uid)


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ("entity A; entity B, C in [A] = { x: Long };", {"A", "B", "C"}),
        ('entity Role enum ["a"]; entity D in Role tags String;', {"Role", "D"}),
        ('type entity_x = { a: String }; entity E = { "entity F": String };', {"E"}),
        (
            "namespace App::Inner { entity User, Group; } entity Outer;",
            {"App::Inner::User", "App::Inner::Group", "Outer"},
        ),
    ],
)
def test_the_entity_types_of_a_schema(schema: str, types: set[str]) -> None:
    assert entity_types(SimpleNamespace(schema=cedarpy.Schema.from_str(schema))) == types  # type: ignore[arg-type]
