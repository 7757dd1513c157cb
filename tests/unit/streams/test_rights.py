"""Who may do what: the rights that the table grants, and why one that somebody holds is too much."""

import dataclasses

import pytest

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.streams.rights import (
    ADMIN,
    ROLES,
    Operation,
    Pattern,
    Permission,
    Realm,
    Resource,
    Right,
    name_users,
    principal_of,
    rights_needed,
)
from sluicegate.streams.topology import PUBLISHER, STAGES, TABLE, Topology

TOPOLOGY = Topology(tenant="main", partitions=3)
REPLIES = {"helpdesk-app": "helpdesk", "billing-app": "billing"}
USERS = name_users("main", {*REPLIES, "sender-app"})
REALM = Realm(topology=TOPOLOGY, users=USERS, needed=rights_needed(TOPOLOGY, USERS, REPLIES))
W, R, D = Operation.WRITE, Operation.READ, Operation.DESCRIBE


def right(principal: str, name: str, operation: Operation = R, **changes: object) -> Right:
    return dataclasses.replace(
        Right(principal=f"User:{principal}", resource=Resource.TOPIC, name=name, operation=operation),
        **changes,  # type: ignore[arg-type]
    )


def holders(name: str, operation: Operation) -> set[str]:
    return {each.principal for each in REALM.needed if each.name == name and each.operation is operation}


def test_each_topic_has_the_one_writer_of_the_table() -> None:
    for row in TABLE:
        writers = holders(f"main.{row.name}", W)
        if row.name == "requests":
            assert writers == {"User:helpdesk-app", "User:billing-app", "User:sender-app"}
        else:
            assert writers == {f"User:main.{row.writer}"}
    assert holders("main.replies.helpdesk", W) == {"User:main.delivery"}


def test_an_application_may_write_requests_and_read_its_answers_and_nothing_else() -> None:
    found = {(each.name, each.operation) for each in REALM.needed if each.principal == "User:helpdesk-app"}
    assert found == {
        ("main.requests", W), ("main.requests", D), ("main.replies.helpdesk", R), ("main.replies.helpdesk", D),
        ("main.refusals", R), ("main.refusals", D),
    }  # fmt: skip
    assert holders("main.replies.helpdesk", R) == {"User:helpdesk-app", "User:main.delivery"}
    silent = {each.name for each in REALM.needed if each.principal == "User:sender-app"}
    assert silent == {"main.requests", "main.refusals"}


def test_only_stages_that_share_partitions_have_a_group_and_nobody_more() -> None:
    groups = {(each.principal, each.name) for each in REALM.needed if each.resource is Resource.GROUP}
    assert groups == {
        (f"User:main.{stage}", f"sluicegate.main.{stage}")
        for stage in ("enforcer", "runner", "redactor", "delivery", "shadow")
    }
    assert {each.principal for each in REALM.needed if each.name == "main.shadow" and each.operation is R} == {
        "User:main.shadow", "User:main.sink", "User:main.publisher",
    }  # fmt: skip
    assert {each.resource for each in REALM.needed} == {Resource.TOPIC, Resource.GROUP}
    assert {each.operation for each in REALM.needed} == {R, W, D}
    assert {each.permission for each in REALM.needed} == {Permission.ALLOW}
    assert {each.pattern for each in REALM.needed} == {Pattern.LITERAL}
    assert not any(each.principal == "User:main.admin" for each in REALM.needed)


def test_what_is_needed_is_not_too_much_from_anywhere() -> None:
    for each in REALM.needed:
        assert REALM.too_much(each) is None
        assert REALM.too_much(dataclasses.replace(each, host="10.0.0.7")) is None
    assert REALM.holds(REALM.needed) == REALM.needed
    assert REALM.holds([dataclasses.replace(each, host="10.0.0.7") for each in REALM.needed]) == REALM.needed
    assert REALM.holds([dataclasses.replace(each, permission=Permission.DENY) for each in REALM.needed]) == frozenset()
    one = next(iter(REALM.needed))
    assert REALM.holds(REALM.needed - {one}) == REALM.needed - {one}


TX, GROUP, CLUSTER = ({"resource": each} for each in (Resource.TRANSACTIONAL_ID, Resource.GROUP, Resource.CLUSTER))
PREFIXED = {"pattern": Pattern.PREFIXED}
TOO_MUCH = [
    (right("rogue", "main.decisions", W), "one writer", True),
    (right("main.runner", "main.decisions", W), "one writer", True),
    (right("main.enforcer", "main.decisions", Operation.ALL), "everything", True),
    (right("billing-app", "main.replies.helpdesk"), "reads what", True),
    (right("helpdesk-app", "main.policy"), "reads what", True),
    (right("rogue", "main.requests", D), "does not grant", True),
    (right("main.enforcer", "main.requests", Operation.DELETE), "does not grant", True),
    (right("rogue", "main.requests", Operation.UNKNOWN), "does not grant", True),
    (right("rogue", "main.not-in-the-table"), "reads what", True),
    (right("main.sink", "main.", R, **PREFIXED), "reads what", True),
    (right("*", "main.refusals"), "reads what", True),
    (right("rogue", "*", W), "one writer", False),
    (right("rogue", "m", W, **PREFIXED), "one writer", False),
    (right("rogue", "", W, **PREFIXED), "one writer", False),
    (right("main.runner", "sluicegate.main.enforcer", R, **GROUP), "partitions", True),
    (right("rogue", "sluicegate.", R, **GROUP, **PREFIXED), "partitions", False),
    (right("rogue", "*", R, **GROUP), "partitions", False),
    (right("main.enforcer", "anything", W, **TX), "TransactionalId", False),
    (right("*", "anything", W, **TX), "TransactionalId", False),
    (right("rogue", "*", W, **TX), "TransactionalId", False),
    (right("rogue", "main.x", W, **TX), "TransactionalId", True),
    (right("helpdesk-app", "kafka-cluster", Operation.ALTER, **CLUSTER), "whole cluster", False),
    (right("*", "kafka-cluster", Operation.CREATE, **CLUSTER), "whole cluster", False),
    (right("main.admin", "main.requests", W), "one writer", True),
    (right("main.admin", "main.", Operation.DELETE, **PREFIXED), "does not grant", True),
    (right("main.enforcer", "main.requests", R, permission=Permission.DENY), "takes away", True),
    (right("*", "main.", Operation.ALL, permission=Permission.DENY, **PREFIXED), "takes away", True),
    (right("*", "*", D, permission=Permission.DENY), "takes away", False),
]
NOBODYS_BUSINESS = [
    right("helpdesk-app", "tickets", Operation.ALL),
    right("rogue", "main2.requests", W),
    right("rogue", "main2.", W, **PREFIXED),
    right("rogue", "other", R, **GROUP),
    right("rogue", "sluicegate.main2.enforcer", R, **GROUP),
    right("rogue", "their-tx", W, **TX),
    right("rogue", "kafka-cluster", Operation.ALL, **CLUSTER),
    right("helpdesk-app", "kafka-cluster", D, **CLUSTER),
    right("main.admin", "main.", Operation.CREATE, **PREFIXED),
    right("main.admin", "kafka-cluster", Operation.ALTER, **CLUSTER),
    right("rogue", "main.decisions", W, permission=Permission.DENY),
    right("*", "main.decisions", Operation.DELETE, permission=Permission.DENY),
]


@pytest.mark.parametrize(("held", "why", "ours"), TOO_MUCH, ids=str)
def test_too_much_is_told_and_taken_away_only_under_our_own_names(held: Right, why: str, ours: bool) -> None:
    assert why in (REALM.too_much(held) or "")
    assert REALM.owns(held) is ours


@pytest.mark.parametrize("held", NOBODYS_BUSINESS, ids=str)
def test_what_touches_nothing_of_the_tenant_is_left_alone(held: Right) -> None:
    assert REALM.too_much(held) is None


def test_users_have_names_of_their_own() -> None:
    users = name_users("main", ["helpdesk-app"], {"enforcer": "CN=gate,O=Heron", "helpdesk-app": "User:hd"})
    assert users.roles == {
        **{role: f"User:main.{role}" for role in (*STAGES, PUBLISHER, ADMIN)},
        "enforcer": "User:CN=gate,O=Heron",
    }
    assert users.applications == {"helpdesk-app": "User:hd"}
    assert "User:hd" in users
    assert "User:helpdesk-app" not in users
    assert set(users.roles) == set(ROLES)


@pytest.mark.parametrize(
    ("services", "named", "problem"),
    [
        (["a"], {"enforcr": "x"}, "is no role and no service"),
        (["sink"], {}, "a stage has this name"),
        (["a", "b"], {"a": "b"}, "have the same user"),
        (["a"], {"a": "main.enforcer"}, "have the same user"),
        ([], {"runner": "x", "redactor": "User:x"}, "have the same user"),
        ([], {"runner": ""}, "is no user"),
        ([], {"runner": "*"}, "is no user"),
        ([], {"runner": "a\nb"}, "is no user"),
    ],
)
def test_users_that_would_hold_others_rights_are_refused(
    services: list[str], named: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        name_users("main", services, named)


def test_a_principal_keeps_its_kind_and_numbers_of_a_newer_broker_are_unknown() -> None:
    assert principal_of("User:a") == principal_of("a") == "User:a"
    assert (Operation(99), Resource(99), Pattern(99), Permission(99)) == (
        Operation.UNKNOWN, Resource.UNKNOWN, Pattern.UNKNOWN, Permission.UNKNOWN,
    )  # fmt: skip
