"""What is wanted against what there is: every difference told once, and nothing else."""

import dataclasses

import pytest

from sluicegate.streams.rights import Operation, Realm, Resource, Right, name_users, rights_needed
from sluicegate.streams.topic_plan import (
    CreateTopic,
    Deviation,
    Found,
    FoundTopic,
    Grant,
    Mend,
    Revoke,
    SetConfigs,
    TopicSpec,
    compare,
    strangers,
    wanted_topics,
)
from sluicegate.streams.topology import Topology

TOPOLOGY = Topology(tenant="main", partitions=3)
REPLIES = {"helpdesk-app": "helpdesk"}
USERS = name_users("main", REPLIES)
REALM = Realm(topology=TOPOLOGY, users=USERS, needed=rights_needed(TOPOLOGY, USERS, REPLIES))
HOUR_MS = 3_600_000


def wanted(replication: int = 3) -> tuple[TopicSpec, ...]:
    return wanted_topics(
        TOPOLOGY,
        replication=replication,
        batch_bytes_max=900_000,
        request_retention_ms=168 * HOUR_MS,
        reply_retention_ms=24 * HOUR_MS,
        replies=REPLIES,
    )


def as_wanted() -> Found:
    topics = {
        spec.name: FoundTopic(
            partitions=spec.partitions, replication=spec.replication, configs={"segment.bytes": "1", **spec.configs}
        )
        for spec in wanted()
    }
    return Found(topics=topics, rights=REALM.needed)


def changed(name: str, **changes: object) -> Found:
    found = as_wanted()
    topics = dict(found.topics)
    topics[name] = dataclasses.replace(topics[name], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(found, topics=topics)


def with_config(name: str, setting: str, value: str | None) -> Found:
    configs = {**as_wanted().topics[name].configs, setting: value}
    return changed(name, configs={each: known for each, known in configs.items() if known is not None})


def only(found: Found, *, revoke: bool = False) -> Deviation:
    (deviation,) = compare(wanted(), found, realm=REALM, revoke=revoke)
    return deviation


def test_the_topics_are_those_of_the_table_with_its_retention_and_stamps() -> None:
    specs = {spec.name: spec for spec in wanted()}
    assert set(specs) == {
        "main.requests", "main.policy", "main.decisions", "main.generations", "main.releases", "main.refusals",
        "main.freshness", "main.shadow", "main.replies.helpdesk",
    }  # fmt: skip
    assert {spec.configs["unclean.leader.election.enable"] for spec in specs.values()} == {"false"}
    assert {spec.configs["cleanup.policy"] for spec in specs.values()} == {"delete"}
    assert {spec.configs["min.insync.replicas"] for spec in specs.values()} == {"2"}
    assert {spec.replication for spec in specs.values()} == {3}
    single = {name: spec.partitions for name, spec in specs.items() if spec.partitions != 3}
    assert single == {"main.policy": 1, "main.freshness": 1}
    stamps = {name: spec.configs["message.timestamp.type"] for name, spec in specs.items()}
    stamped = {name for name, stamp in stamps.items() if stamp == "LogAppendTime"}
    assert stamped == {"main.requests", "main.policy", "main.freshness"}
    assert {name for name, spec in specs.items() if "segment.ms" in spec.configs} == {"main.freshness"}
    assert specs["main.policy"].configs["retention.ms"] == specs["main.policy"].configs["retention.bytes"] == "-1"
    assert specs["main.requests"].configs["retention.ms"] == str(168 * HOUR_MS)
    assert specs["main.replies.helpdesk"].configs["retention.ms"] == str(24 * HOUR_MS)
    assert int(specs["main.requests"].configs["max.message.bytes"]) > 900_000


@pytest.mark.parametrize(("replication", "insync"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_all_but_one_replica_acknowledge(replication: int, insync: str) -> None:
    assert {spec.configs["min.insync.replicas"] for spec in wanted(replication)} == {insync}


def test_nothing_differs_where_all_is_as_wanted() -> None:
    assert compare(wanted(), as_wanted(), realm=REALM) == ()
    assert compare(wanted(), as_wanted(), realm=REALM, revoke=True) == ()


def test_on_an_empty_broker_everything_is_created_topics_first() -> None:
    found = compare(wanted(), Found(topics={}, rights=frozenset()), realm=REALM)
    assert {each.mend for each in found} == {Mend.CREATE}
    topics = [each.action.spec for each in found if isinstance(each.action, CreateTopic)]
    assert tuple(topics) == wanted()
    assert all(isinstance(each.action, CreateTopic) for each in found[: len(topics)])
    assert {each.action.right for each in found if isinstance(each.action, Grant)} == REALM.needed
    assert len(found) == len(topics) + len(REALM.needed)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("retention.ms", "1000", "retention.ms 1000 -> 604800000"),
        ("message.timestamp.type", "CreateTime", "message.timestamp.type CreateTime -> LogAppendTime"),
        ("min.insync.replicas", "1", "min.insync.replicas 1 -> 2"),
        ("cleanup.policy", "compact", "cleanup.policy compact -> delete"),
        ("unclean.leader.election.enable", "true", "unclean.leader.election.enable true -> false"),
        ("max.message.bytes", None, "max.message.bytes unset -> 965536"),
    ],
)
def test_a_setting_that_differs_is_changed_alone(setting: str, value: str | None, told: str) -> None:
    found = only(with_config("main.requests", setting, value))
    right_value = next(spec for spec in wanted() if spec.name == "main.requests").configs[setting]
    assert (found.mend, found.what) == (Mend.CHANGE, f"topic `main.requests`: {told}")
    assert found.action == SetConfigs(topic="main.requests", configs={setting: right_value})


@pytest.mark.parametrize(
    ("changes", "told", "how"),
    [
        ({"partitions": 4}, "has 4 partitions, not 3", "SLUICEGATE_PARTITIONS` to 4"),
        ({"partitions": 2}, "has 2 partitions, not 3", "SLUICEGATE_PARTITIONS` to 2"),
        ({"replication": 1}, "has 1 replicas, not 3", "kafka-reassign-partitions.sh"),
    ],
)
def test_a_shape_that_differs_is_told_and_left(changes: dict[str, int], told: str, how: str) -> None:
    found = only(changed("main.decisions", **changes))
    assert (found.mend, found.action) == (Mend.HAND, None)
    assert told in found.what
    assert how in found.how


def test_a_right_that_is_too_much_goes_only_when_told() -> None:
    extra = Right(principal="User:rogue", resource=Resource.TOPIC, name="main.releases", operation=Operation.WRITE)
    found = dataclasses.replace(as_wanted(), rights=REALM.needed | {extra})
    told = only(found)
    assert (told.mend, told.action) == (Mend.HAND, None)
    assert "apply --revoke" in told.how
    told = only(found, revoke=True)
    assert (told.mend, told.action) == (Mend.REMOVE, Revoke(right=extra))
    elsewhere = dataclasses.replace(extra, name="*")
    told = only(dataclasses.replace(found, rights=REALM.needed | {elsewhere}), revoke=True)
    assert (told.mend, told.action) == (Mend.HAND, None)
    assert "kafka-acls.sh --remove" in told.how


def test_a_missing_right_is_granted() -> None:
    missing = min(REALM.needed)
    found = only(dataclasses.replace(as_wanted(), rights=REALM.needed - {missing}))
    assert (found.mend, found.action) == (Mend.CREATE, Grant(right=missing))


def test_a_broker_without_an_authorizer_is_told_once() -> None:
    found = only(dataclasses.replace(as_wanted(), rights=None))
    assert (found.mend, found.action) == (Mend.HAND, None)
    assert "everybody may read and write" in found.what
    assert compare(wanted(), dataclasses.replace(as_wanted(), rights=None)) == ()


def test_topics_that_nobody_knows_are_named_and_another_tenants_are_not() -> None:
    found = as_wanted()
    other = FoundTopic(partitions=1, replication=1, configs={})
    topics = {**found.topics, "main.replies.gone": other, "main2.requests": other, "mainframe": other}
    found = dataclasses.replace(found, topics=topics)
    assert strangers(wanted(), found, TOPOLOGY) == ("main.replies.gone",)
    assert compare(wanted(), found, realm=REALM) == ()
