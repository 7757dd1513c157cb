"""Requests that are made up: one of each kind that policies can tell apart, and an even walk through too many."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.space import Asking, People, When, spread, whens
from sluicegate.policy.tree import Condition, PolicyTree, Scope, read_tree
from sluicegate.schemas.ids import EntityUid, PolicyId

POLICIES = Path(__file__).parents[3] / "policies"
BUNDLE = load_bundle(read_bundle(POLICIES))
TREES = [read_tree(source) for source in BUNDLE.policies.values()]
DOCUMENT = json.loads((POLICIES / "directory.json").read_bytes())


def people(*more: dict[str, object], trees: list[PolicyTree] | None = None) -> People:
    content = json.dumps({"entities": [*DOCUMENT["entities"], *more]}).encode()
    return People(load_directory(content, BUNDLE), TREES if trees is None else trees)


def like_ian(name: str) -> dict[str, object]:
    (ian,) = [each for each in DOCUMENT["entities"] if each["uid"]["id"] == "ian.intern"]
    return {**ian, "uid": {"type": "User", "id": name}}


def naming(name: str) -> PolicyTree:
    anyone = Scope(op="All")
    return PolicyTree(
        id=PolicyId("p"),
        effect="permit",
        principal=Scope(op="==", entities=(("User", name),)),
        action=anyone,
        resource=anyone,
        conditions=(),
        annotations={},
    )


def test_one_is_asked_for_all_whom_no_policy_can_tell_apart() -> None:
    ian, other = EntityUid('User::"ian.intern"'), EntityUid('User::"ian.second"')
    found = people(like_ian("ian.second"))
    assert ian in found.of("User")
    assert other not in found.of("User")
    assert found.alike(ian) == (ian, other)
    assert len(found.of("User")) == len(people().of("User"))


def test_the_order_of_a_set_tells_nobody_apart() -> None:
    other = like_ian("ian.second")
    attributes = other["attrs"]
    assert isinstance(attributes, dict)
    turned = {**other, "attrs": {**attributes, "purposes": list(reversed(attributes["purposes"]))}}
    assert len(people(turned).of("User")) == len(people().of("User"))
    fewer = {**other, "attrs": {**attributes, "purposes": attributes["purposes"][1:]}}
    assert len(people(fewer).of("User")) == len(people().of("User")) + 1


def test_one_whom_a_policy_names_is_asked_for_alone() -> None:
    found = people(like_ian("ian.second"), trees=[*TREES, naming("ian.second")])
    assert {'User::"ian.intern"', 'User::"ian.second"'} <= set(found.of("User"))


def test_services_of_which_one_may_vouch_are_told_apart() -> None:
    assert set(people().of("Service")) == {
        'Service::"helpdesk-app"', 'Service::"nightly-triage"', 'Service::"rogue-app"',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "inside"),
    [
        (Scope(op="All"), True),
        (Scope(op="==", entities=(("User", "ian.intern"),)), True),
        (Scope(op="==", entities=(("User", "eva.eng"),)), False),
        (Scope(op="in", entities=(("Role", "intern"),)), True),
        (Scope(op="in", entities=(("User", "ian.intern"),)), True),
        (Scope(op="in", entities=(("Role", "people"),)), False),
        (Scope(op="is", entity_type="User"), True),
        (Scope(op="is", entity_type="Service"), False),
        (Scope(op="is", entity_type="User", entities=(("Role", "intern"),)), True),
        (Scope(op="is", entity_type="User", entities=(("Role", "people"),)), False),
    ],
)
def test_a_head_matches_as_cedar_says(scope: Scope, inside: bool) -> None:
    assert people().within(scope, EntityUid('User::"ian.intern"')) is inside


def test_the_company_asks_at_the_hours_that_it_tells_apart() -> None:
    found = whens(TREES)
    assert [each.hour for each in found] == [0, 6, 7, 20]
    assert {(each.weekday, each.max_tokens, each.stream) for each in found} == {(0, None, False)}


def _compared(operator: str, path: str, value: int, *, turned: bool = False) -> PolicyTree:
    node: dict[str, object] = {"Var": "context"}
    for name in path.split("."):
        node = {".": {"left": node, "attr": name}}
    sides = {"left": {"Value": value}, "right": node} if turned else {"left": node, "right": {"Value": value}}
    tree = naming("x")
    return PolicyTree(
        id=tree.id,
        effect="permit",
        principal=tree.action,
        action=tree.action,
        resource=tree.action,
        conditions=(Condition(kind="when", body={operator: sides}),),
        annotations={},
    )


@pytest.mark.parametrize(
    ("operator", "turned", "hours"),
    [
        (">=", False, [0, 9]), (">", False, [0, 10]), ("<", False, [0, 9]), ("<=", False, [0, 10]),
        (">=", True, [0, 10]), (">", True, [0, 9]), ("<", True, [0, 10]), ("<=", True, [0, 9]),
        ("==", False, [0, 9, 10]), ("!=", True, [0, 9, 10]), ("+", False, [0, 9, 10]),
    ],
)  # fmt: skip
def test_hours_are_cut_where_a_comparison_turns(operator: str, turned: bool, hours: list[int]) -> None:
    found = whens([_compared(operator, "clock.hour", 9, turned=turned)])
    assert [each.hour for each in found] == hours


def test_tokens_are_asked_for_only_where_a_policy_looks_at_them() -> None:
    assert [each.max_tokens for each in whens([_compared("<", "asked.outputTokens", 99)])] == [1, 99]
    assert [each.weekday for each in whens([_compared("<", "clock.weekday", 5)])] == [0, 5]


def test_a_request_says_what_it_was_made_of() -> None:
    asking = Asking(
        principal=EntityUid('User::"ana.support"'),
        actor=EntityUid('Service::"helpdesk-app"'),
        purpose="ticket",
        model=EntityUid('Model::"smollm2"'),
        when=When(hour=7, weekday=2, max_tokens=9),
        field=EntityUid('Field::"tickets.phone"'),
    )
    ask = asking.ask()
    hours = ask.time_ms // 3_600_000
    assert (hours % 24, (hours // 24 + 3) % 7) == (7, 2)
    assert ask.request.documents[0].dataset == "tickets"
    assert [each.name for each in ask.request.documents[0].fields] == ["phone"]
    assert ask.request.parameters.max_tokens == 9


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(1, 60))
def test_a_walk_is_even_and_never_the_same_twice(sizes: list[int], budget: int) -> None:
    found = list(spread(sizes, budget))
    total = 1
    for size in sizes:
        total *= size
    assert len(found) == min(total, budget)
    assert len(set(found)) == len(found)
    assert found == sorted(found)
    assert all(0 <= each < size for indexes in found for each, size in zip(indexes, sizes, strict=True))
    assert found == list(spread(sizes, budget))
