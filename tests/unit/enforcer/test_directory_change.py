"""A change of a directory says what it touches, is of one form, and leaves nothing half-applied."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.bundle import digest_of
from sluicegate.enforcer.decide import Decider, context_json, entity_json
from sluicegate.enforcer.directory import conform
from sluicegate.enforcer.directory_change import (
    CHANGES_MAX,
    Change,
    DirectoryContent,
    change_content,
    read_change,
    read_content,
    read_whole,
)
from sluicegate.keys import public_jwk
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import entity_uid

ANA, EVA = entity_uid("User", "ana.support"), entity_uid("User", "eva.eng")


def user(name, role="support", *, on_leave=False):
    purposes = [{"__entity": {"type": "Purpose", "id": "ticket"}}]
    attrs = {"onLeave": on_leave, "purposes": purposes}
    return {"uid": {"type": "User", "id": name}, "attrs": attrs, "parents": [{"type": "Role", "id": role}]}


def jwk(name):
    return public_jwk(Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")))


def service_key(kid, service="helpdesk-app"):
    return {"kid": kid, "service": service, "jwk": jwk(kid)}


@pytest.fixture(scope="module")
def whole(heron_directory):
    document = json.loads(heron_directory)
    document["service_keys"] = [service_key("k1"), service_key("k2")]
    document["issuers"] = []
    document["replies"] = [{"service": "helpdesk-app", "topic": "helpdesk"}]
    return json.dumps(document).encode()


def changed(whole, **change):
    return read_content(whole).changed(read_change(change_content(change)))


def test_which_of_the_two_it_is(whole):
    assert isinstance(read_content(whole), DirectoryContent)
    raw = change_content({"put": [user("new")]})
    assert isinstance(read_content(raw), Change)
    with pytest.raises(InvalidDirectory, match="this is a change"):
        read_whole(raw)
    with pytest.raises(InvalidDirectory, match="this is no change"):
        read_change(whole)


def test_types_are_what_it_touches(whole):
    found = read_change(
        change_content(
            {
                "put": [user("new")],
                "remove": ['Field::"tickets.text"'],
                "service_keys": {"remove": ["k1"]},
                "issuers": {"put": [], "remove": []},
                "replies": {"remove": ["helpdesk-app"]},
            }
        )
    )
    assert found.types == {"User", "Field", "ServiceKey", "Reply"}
    assert found.touched == {'User::"new"', 'Field::"tickets.text"'}
    assert {"User", "Service", "Dataset", "ServiceKey", "Reply"} <= read_content(whole).types
    assert "Issuer" not in read_content(whole).types


def test_digest_is_chained(whole):
    raw = change_content({"put": [user("new")]})
    before = read_content(whole)
    after = before.changed(read_change(raw))
    assert before.digest == digest_of(whole)
    assert after.digest == digest_of((digest_of(whole) + digest_of(raw)).encode())
    assert (after.origin, after.touched) == (before.digest, {'User::"new"'})
    assert read_content(after.whole()).entities == after.entities


def test_what_did_not_change_is_shared(whole):
    before = read_content(whole)
    after = before.changed(
        read_change(change_content({"service_keys": {"put": [service_key("k3")], "remove": ["k1"]}}))
    )
    assert after.entities is before.entities
    assert sorted(after.credentials.service_keys) == ["k2", "k3"]
    assert after.credentials.service_keys["k2"] is before.credentials.service_keys["k2"]
    assert after.credentials.issuers is before.credentials.issuers
    assert sorted(before.credentials.service_keys) == ["k1", "k2"]
    assert after.credentials.replies == {"helpdesk-app": "helpdesk"}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "changes nothing"),
        ({"puts": []}, "unknown key `puts`"),
        ({"put": [user("a"), user("a")]}, 'User::"a": stands twice'),
        ({"put": [user("a")], "remove": ['User::"a"']}, "is put and removed"),
        ({"remove": ['User::"a"', 'User::"a"']}, "names something twice"),
        ({"remove": [{"type": "User", "id": "a"}]}, "must be a list of names"),
        ({"put": [{**user("a"), "note": 1}]}, "needs `uid`"),
        ({"put": [{"uid": {"type": "Action", "id": "read"}, "attrs": {}, "parents": []}]}, "actions are the schema's"),
        ({"remove": ['Action::"read"']}, "actions are the schema's"),
        ({"put": [user(f"u{n}") for n in range(CHANGES_MAX + 1)]}, "make several changes"),
        ({"service_keys": []}, "must be an object of `put` and `remove`"),
        ({"service_keys": {"put": [service_key("k"), service_key("k")]}}, "each with its own `kid`"),
        ({"service_keys": {"put": [service_key("k")], "remove": ["k"]}}, "is put and removed"),
        ({"service_keys": {"put": [{**service_key("k"), "jwk": {**jwk("k"), "d": "AA"}}]}}, "private or secret"),
        ({"issuers": {"put": [{"issuer": "i"}]}}, "must have exactly the members"),
    ],
)
def test_wrong_change(change, wanted):
    with pytest.raises(InvalidDirectory) as caught:
        read_change(change_content(change))
    assert any(wanted in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    "raw",
    [
        b'{"change": {"put": [], "remove": ["User::\\"a\\""]}}',
        b'{"change":{"remove":["User::\\"b\\"","User::\\"a\\""]}}',
        b'{"change":{"remove":["User::\\"a\\""]},"entities":[]}',
        b'{"change":{"remove":["User::\\"a\\""],"remove":["User::\\"a\\""]}}',
        b'{"change":[]}',
    ],
)
def test_a_change_has_one_form(raw):
    with pytest.raises(InvalidDirectory):
        read_change(raw)
    assert read_change(b'{"change":{"remove":["User::\\"a\\"","User::\\"b\\""]}}').types == {"User"}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"remove": ['User::"nobody"']}, 'User::"nobody": is not there'),
        ({"remove": ["ana.support"]}, "is not there"),
        ({"service_keys": {"remove": ["k9"]}}, "`k9` is not there"),
        ({"replies": {"put": [{"service": "nobody", "topic": "x"}]}}, "is no Service"),
        ({"replies": {"put": [{"service": "nightly-triage", "topic": "helpdesk"}]}}, "another service's"),
        ({"remove": ['Service::"helpdesk-app"']}, "is no Service"),
    ],
)
def test_a_change_that_does_not_fit(whole, change, wanted):
    with pytest.raises(InvalidDirectory) as caught:
        changed(whole, **change)
    assert any(wanted in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"put": [user("new", role="suport")]}, 'User::"new": entity does not conform'),
        ({"remove": ['Dataset::"tickets"']}, 'Dataset::"tickets": cannot be removed, since Field::"tickets.'),
        (
            {
                "put": [
                    {
                        "uid": {"type": "Dataset", "id": "more"},
                        "attrs": {"labelledBy": [{"__entity": {"type": "Service", "id": "gone"}}]},
                        "parents": [],
                    }
                ]
            },
            'Service::"gone", which is nowhere',
        ),
        (
            {"put": [{"uid": {"type": "Dataset", "id": "a.b"}, "attrs": {"labelledBy": []}, "parents": []}]},
            "a dataset's id holds no `.`",
        ),
    ],
)
def test_a_changed_directory_conforms_or_is_refused(whole, heron, change, wanted):
    before = conform(read_content(whole), heron.bundle)
    for earlier in (before, None):  # checked alike whether or not there is one to start from
        with pytest.raises(InvalidDirectory) as caught:
            conform(changed(whole, **change), heron.bundle, before=earlier)
        text = str(caught.value)
        assert wanted in text or (earlier is None and "which is nowhere" in text), text


def test_only_what_changed_is_made_anew(whole, heron):
    before = conform(read_content(whole), heron.bundle)
    after = conform(changed(whole, put=[user("ana.support", on_leave=True)]), heron.bundle, before=before)
    assert after.entries[EVA] is before.entries[EVA]
    assert '"onLeave":true' in after.entries[ANA].text
    assert '"onLeave":false' in before.entries[ANA].text


def test_a_whole_directory_is_compared_to_the_one_before(whole, heron):
    before = conform(read_content(whole), heron.bundle)
    put = {entity_uid("User", "ana.support"): user("ana.support", on_leave=True), entity_uid("User", "x"): user("x")}
    document = json.loads(whole)
    kept = [each for each in document["entities"] if entity_uid(*each["uid"].values()) not in put]
    gone = entity_uid(*next(each for each in kept if each["uid"]["type"] == "User")["uid"].values())
    kept = [each for each in kept if entity_uid(*each["uid"].values()) != gone]
    content = read_content(json.dumps({**document, "entities": [*kept, *put.values()]}).encode())
    after = conform(content, heron.bundle, before=before)
    assert after.entries == conform(content, heron.bundle).entries
    assert (after.touched, after.origin) == ({*put, gone}, before.digest)
    assert after.entries[EVA] is before.entries[EVA]
    # What is wrong is said in the same words, whichever the worker read before.
    wrong = read_content(json.dumps({**document, "entities": [*document["entities"], user("y", role="no")]}).encode())
    texts = set()
    for earlier in (before, after, None):
        with pytest.raises(InvalidDirectory) as caught:
            conform(wrong, heron.bundle, before=earlier)
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_a_changed_entity_is_decided_anew_and_others_are_remembered(whole, heron):
    before = conform(read_content(whole), heron.bundle)
    decider = Decider(heron.bundle, before)
    context = context_json(
        {
            "purpose": entity_json("Purpose", "ticket"),
            "via": entity_json("Service", "helpdesk-app"),
            "model": entity_json("Model", "smollm2"),
        }
    )
    text = entity_uid("Field", "tickets.text")
    first = {each: decider.rule("read", each, text, context) for each in (ANA, EVA)}
    assert [ruling.allowed for ruling in first.values()] == [True, True]
    after = conform(changed(whole, put=[user("ana.support", on_leave=True)]), heron.bundle, before=before)
    follower = Decider(heron.bundle, after, before=decider)
    assert follower.remembered == 1
    assert follower.rule("read", EVA, text, context) is first[EVA]
    ruling = follower.rule("read", ANA, text, context)
    assert (ruling.allowed, ruling.policies) == (False, ("on-leave",))
    assert decider.rule("read", ANA, text, context).allowed  # what was in force before decides as before
    stranger = Decider(heron.bundle, conform(changed(whole, put=[user("x")]), heron.bundle), before=follower)
    assert stranger.remembered == 0  # not changed from the follower's directory


def test_a_ruling_depends_on_all_ancestors_of_what_it_names(whole, heron):
    # The field's dataset is its ancestor too: what was remembered of the field goes when the dataset changes.
    before = conform(read_content(whole), heron.bundle)
    decider = Decider(heron.bundle, before)
    context = context_json(
        {
            name: entity_json(*each)
            for name, each in {
                "purpose": ("Purpose", "ticket"),
                "via": ("Service", "helpdesk-app"),
                "model": ("Model", "smollm2"),
            }.items()
        }
    )
    text = entity_uid("Field", "tickets.text")
    assert decider.rule("read", ANA, text, context).allowed
    unlabelled = {"uid": {"type": "Dataset", "id": "tickets"}, "attrs": {"labelledBy": []}, "parents": []}
    after = conform(changed(whole, put=[unlabelled]), heron.bundle, before=before)
    ruling = Decider(heron.bundle, after, before=decider).rule("read", ANA, text, context)
    assert (ruling.allowed, ruling.policies) == (False, ("labels-need-a-voucher",))
