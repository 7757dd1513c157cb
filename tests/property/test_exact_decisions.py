"""What the engine says of the policies and entities that are picked out is what it says of all of both (DESIGN 4); a
directory that was changed is the directory that was read whole.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import Bundle, digest_of, load_bundle
from sluicegate.enforcer.decide import _FAILED, Decider, context_json
from sluicegate.enforcer.directory import Directory, conform
from sluicegate.enforcer.directory_change import change_content, read_change, read_content, read_whole
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import PolicyId, entity_uid

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SCHEMA = """
entity Rank enum ["low", "high"];
entity Group in [Group] = { "owner"?: User };
entity User in [Group, Rank] = { "level": Long, "boss"?: User, "friends": Set<User>, "extra"?: { "team"?: Group } };
entity Doc in [Doc] = { "owner": User, "groups": Set<Group>, "next"?: Doc };
action "any";
action "read", "shape" in [Action::"any"] appliesTo {
  principal: [User, Group], resource: [Doc, User], context: { "via": User, "n": Long, "rank": Rank }
};
"""
USERS, GROUPS, DOCS = ("u0", "u1", "u2", "u3"), ("g0", "g1", "g2"), ("d0", "d1", "d2")
UIDS = [("User", name) for name in USERS] + [("Group", name) for name in GROUPS] + [("Doc", name) for name in DOCS]
LITERALS = [entity_uid(*uid) for uid in (*UIDS, ("Rank", "low"), ("User", "nobody"))]


def ref(kind, name):
    return {"__entity": {"type": kind, "id": name}}


def some(of):
    return st.lists(st.sampled_from(of), max_size=2, unique=True) if of else st.just([])


def entity(kind, name, attrs, parents):
    return {"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": [{"type": t, "id": i} for t, i in parents]}


@st.composite
def user(draw, name):
    attrs = {"level": draw(st.integers(0, 3)), "friends": [ref("User", each) for each in draw(some(USERS))]}
    if draw(st.booleans()):
        attrs["boss"] = ref("User", draw(st.sampled_from(USERS)))
    if draw(st.booleans()):
        attrs["extra"] = {"team": ref("Group", draw(st.sampled_from(GROUPS)))} if draw(st.booleans()) else {}
    parents = [("Group", each) for each in draw(some(GROUPS))] + [
        ("Rank", each) for each in draw(some(["low", "high"]))
    ]
    return entity("User", name, attrs, parents)


@st.composite
def group(draw, name):
    attrs = {"owner": ref("User", draw(st.sampled_from(USERS)))} if draw(st.booleans()) else {}
    return entity("Group", name, attrs, [("Group", each) for each in draw(some([g for g in GROUPS if g > name]))])


@st.composite
def doc(draw, name):
    attrs = {
        "owner": ref("User", draw(st.sampled_from(USERS))),
        "groups": [ref("Group", each) for each in draw(some(GROUPS))],
    }
    if draw(st.booleans()):
        attrs["next"] = ref("Doc", draw(st.sampled_from(DOCS)))
    higher = [each for each in DOCS if each > name]
    return entity("Doc", name, attrs, [("Doc", each) for each in draw(some(higher))] if higher else [])


MAKERS = {"User": user, "Group": group, "Doc": doc}


def whole_company():
    return st.tuples(*(MAKERS[kind](name) for kind, name in UIDS)).map(list)


# Expressions over entities, and over truth; many fail at some value: a missing attribute, a wrong type, an overflow.
VALUES = st.recursive(
    st.sampled_from(["principal", "resource", "context.via", *LITERALS]),
    lambda inner: st.builds(
        lambda base, name: f"{base}.{name}", inner, st.sampled_from(["boss", "owner", "next", "extra.team"])
    ),
    max_leaves=3,
)
TRUTHS = st.recursive(
    st.one_of(
        st.builds(lambda a, b: f"{a} in {b}", VALUES, VALUES),
        st.builds(lambda a, b: f"{a} == {b}", VALUES, VALUES),
        st.builds(lambda a, b: f"{a}.friends.contains({b})", VALUES, VALUES),
        st.builds(lambda a, b: f"{a}.groups.contains({b})", VALUES, VALUES),
        st.builds(lambda a, name: f"{a} has {name}", VALUES, st.sampled_from(["boss", "owner", "extra", "extra.team"])),
        st.builds(lambda a: f"{a}.level + context.n > 2", VALUES),
        st.builds(lambda a, b: f'{{"in": {a}, "Value": {b}.boss}}["Value"] in {b}', VALUES, VALUES),
        st.builds(lambda a, kind, b: f"{a} is {kind} in {b}", VALUES, st.sampled_from(["User", "Group"]), VALUES),
        st.sampled_from(
            ['action in Action::"any"', 'context.rank == Rank::"low"', "9223372036854775807 + context.n > 0"]
        ),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: f"({a} && {b})", inner, inner),
        st.builds(lambda a, b: f"({a} || {b})", inner, inner),
        st.builds(lambda a, b, c: f"(if {a} then {b} else {c})", inner, inner, inner),
    ),
    max_leaves=3,
)


def scope(variable, kinds):
    literal = st.sampled_from(LITERALS)
    kind = st.sampled_from(kinds)
    return st.one_of(
        st.just(variable),
        st.builds(lambda each: f"{variable} == {each}", literal),
        st.builds(lambda each: f"{variable} in {each}", literal),
        st.builds(lambda each: f"{variable} is {each}", kind),
        st.builds(lambda each, target: f"{variable} is {each} in {target}", kind, literal),
    )


ACTIONS = [
    "action",
    'action == Action::"read"',
    'action in Action::"any"',
    'action in [Action::"shape", Action::"read"]',
]
POLICY = st.builds(
    lambda effect, principal, action, resource, kind, body: (
        f"{effect} ({principal}, {action}, {resource}) {kind} {{ {body} }};"
    ),
    st.sampled_from(["permit", "permit", "forbid"]),
    scope("principal", ["User", "Group"]),
    st.sampled_from(ACTIONS),
    scope("resource", ["Doc", "User"]),
    st.sampled_from(["when", "unless"]),
    TRUTHS,
)


@cache
def heron() -> Bundle:
    return load_bundle(read_bundle(POLICIES))


def bundle_of(policies: list[str]) -> Bundle:
    schema = cedarpy.Schema.from_str(SCHEMA)
    sources, trees = {}, {}
    for number, text in enumerate(policies):
        own = PolicyId(f"p{number}")
        (trees[own],) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
        sources[own] = PolicySource(
            id=own, file="x.cedar", line=1, forbids=False, actions=(), annotations=MappingProxyType({}), text=text
        )
    document = json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": trees})
    return replace(
        heron(),
        digest=digest_of(document.encode()),
        policies=sources,
        policy_set=cedarpy.PolicySet.from_json_str(document),
        schema=schema,
        enums={"Rank": frozenset({"low", "high"})},
    )


def plain(bundle: Bundle, entities: list[object], question):
    """Cedar alone, over all policies and all entities parsed at once."""
    action, principal, resource, context = question
    handle = cedarpy.Entities.from_json_str(json.dumps(entities), bundle.schema)
    request = {
        "principal": {"type": principal[0], "id": principal[1]},
        "action": {"type": "Action", "id": action},
        "resource": {"type": resource[0], "id": resource[1]},
        "context": context,
    }
    answer = cedarpy.is_authorized(request, bundle.policy_set, handle, bundle.schema)
    errors = tuple(sorted({_FAILED.match(text)[1] for text in answer.diagnostics.errors}))
    return answer.allowed and not errors, tuple(sorted(answer.diagnostics.reasons)), errors


def questions():
    return st.tuples(
        st.sampled_from(["read", "shape"]),
        st.sampled_from([uid for uid in UIDS if uid[0] != "Doc"]),
        st.sampled_from([uid for uid in UIDS if uid[0] != "Group"]),
        st.builds(
            lambda via, n, rank: context_json({"via": ref("User", via), "n": n, "rank": ref("Rank", rank)}),
            st.sampled_from(USERS),
            st.integers(0, 2),
            st.sampled_from(["low", "high"]),
        ),
    )


def ruled(decider: Decider, question):
    action, principal, resource, context = question
    ruling = decider.rule(action, entity_uid(*principal), entity_uid(*resource), context)
    return ruling.allowed, ruling.policies, ruling.errors


def content(entities):
    return json.dumps({"entities": entities, "service_keys": [], "issuers": []}).encode()


SEEN = {"allowed": 0, "denied": 0, "failed": 0}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rulings_are_cedars_own_before_and_after_a_change(data):
    bundle = bundle_of(data.draw(st.lists(POLICY, min_size=1, max_size=6)))
    entities = data.draw(whole_company())
    before = conform(read_content(content(entities)), bundle)
    decider = Decider(bundle, before)
    asked = data.draw(st.lists(questions(), min_size=2, max_size=6))
    for question in asked:
        wanted = plain(bundle, entities, question)
        assert ruled(decider, question) == wanted
        SEEN["failed" if wanted[2] else "allowed" if wanted[0] else "denied"] += 1
    # One entity is another now: what was remembered must not be stale, and what is kept must be right.
    kind, name = data.draw(st.sampled_from(UIDS))
    put = data.draw(MAKERS[kind](name))
    change = read_change(change_content({"put": [put]}))
    after = conform(read_content(content(entities)).changed(change), bundle, before=before)
    changed = [put if each["uid"] == put["uid"] else each for each in entities]
    same = conform(read_content(content(changed)), bundle)
    assert dict(after.entries) == dict(same.entries)
    # The same as a whole directory, which is compared to the one before.
    compared = conform(read_content(content(changed)), bundle, before=before)
    assert dict(compared.entries) == dict(same.entries)
    assert compared.touched == ({entity_uid(kind, name)} if changed != entities else set())
    for directory in (after, compared):
        follower = Decider(bundle, directory, before=decider)
        for question in asked:
            assert ruled(follower, question) == plain(bundle, changed, question)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rulings_asked_beforehand_are_cedars_own(data):
    """A bundle that replaces another is asked what the other was asked, before anybody asks it."""
    old, new = (bundle_of(data.draw(st.lists(POLICY, min_size=1, max_size=6))) for _ in range(2))
    entities = data.draw(whole_company())
    asked = data.draw(st.lists(questions(), min_size=2, max_size=6))
    before = Decider(old, conform(read_content(content(entities)), old))
    for question in asked:
        ruled(before, question)
    decider = Decider(new, conform(read_content(content(entities)), new))
    decider.warm(before)
    assert decider.remembered == before.remembered
    for question in asked:
        assert ruled(decider, question) == plain(new, entities, question)


def test_the_drawn_questions_tell_things_apart():
    """The control of the test above: it met allows, denials and failing policies."""
    if sum(SEEN.values()):  # run alone there is nothing to look at
        assert SEEN["allowed"] > 0
        assert SEEN["denied"] > 0
        assert SEEN["failed"] > 0


@st.composite
def steps(draw):
    """A change that may be wrong: puts and removes of any entity."""
    names = draw(st.lists(st.sampled_from(UIDS), min_size=1, max_size=3, unique=True))
    put, remove = [], []
    for kind, name in names:
        if draw(st.integers(0, 3)):
            put.append(draw(MAKERS[kind](name)))
        else:
            remove.append(entity_uid(kind, name))
    return {"put": put, "remove": remove}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_sequence_of_changes_is_the_directory_read_whole(data):
    bundle = bundle_of(["permit (principal, action, resource);"])
    entities = {entity_uid(e["uid"]["type"], e["uid"]["id"]): e for e in data.draw(whole_company())}
    now = read_content(content(list(entities.values())))
    directory: Directory = conform(now, bundle)
    digest = now.digest
    for change in data.draw(st.lists(steps(), min_size=1, max_size=6)):
        raw = change_content(change)
        read = read_change(raw)
        wanted = {uid: each for uid, each in entities.items() if uid not in read.remove}
        wanted |= {entity_uid(e["uid"]["type"], e["uid"]["id"]): e for e in change["put"]}
        absent = read.remove - entities.keys()
        try:
            whole = conform(read_content(content(list(wanted.values()))), bundle)
        except InvalidDirectory:
            whole = None
        try:
            candidate = now.changed(read)
            made = conform(candidate, bundle, before=directory)
        except InvalidDirectory:
            assert absent or whole is None
            continue
        assert not absent
        assert whole is not None
        assert dict(made.entries) == dict(whole.entries)
        assert candidate.digest == digest_of(f"{digest}{digest_of(raw)}".encode())
        assert read_whole(candidate.whole()).entities == read_content(content(list(wanted.values()))).entities
        now, directory, digest, entities = candidate, made, candidate.digest, wanted


def test_a_ruling_depends_on_ancestors_that_nobody_names():
    bundle = bundle_of(['permit (principal in Group::"g2", action, resource);'])
    chain = [
        entity("Group", "g2", {}, []),
        entity("Group", "g1", {}, []),
        entity("Group", "g0", {}, [("Group", "g1")]),
        entity("User", "u0", {"level": 0, "friends": []}, [("Group", "g0")]),
    ]
    before = conform(read_content(content(chain)), bundle)
    decider = Decider(bundle, before)
    context = context_json({"via": ref("User", "u0"), "n": 0, "rank": ref("Rank", "low")})
    question = ("read", ("User", "u0"), ("User", "u0"), context)
    assert not ruled(decider, question)[0]
    change = read_change(change_content({"put": [entity("Group", "g1", {}, [("Group", "g2")])]}))
    after = conform(read_content(content(chain)).changed(change), bundle, before=before)
    assert ruled(Decider(bundle, after, before=decider), question)[0]
    circle = read_change(change_content({"put": [entity("Group", "g1", {}, [("Group", "g0")])]}))
    with pytest.raises(InvalidDirectory, match="own ancestor"):
        conform(read_content(content(chain)).changed(circle), bundle, before=before)
