"""What the table asks for and what the broker has go in, the differences and how each is mended come out: the only
place that compares the two. It reaches no broker: `topic_admin` looks and does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sluicegate.streams.rights import Realm, Right
from sluicegate.streams.topology import Retention, Topology

APPLY: Final = "run `sluicegate topics apply`"
REVOKE: Final = "run `sluicegate topics apply --revoke`"


class Mend(StrEnum):
    """What is done about a difference; `HAND`: nothing from here."""

    CREATE = "+"
    CHANGE = "~"
    REMOVE = "-"
    HAND = "!"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as it shall be."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTopic:
    """A topic as it is. `replication`: of the partition with the fewest copies. `configs`: what is in force."""

    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the broker has. `topics`: all that this user may see. `rights`: None where it has no authorizer."""

    topics: Mapping[str, FoundTopic]
    rights: frozenset[Right] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopic:
    """To be done: create it."""

    spec: TopicSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConfigs:
    """To be done: set these settings of a topic and leave its others."""

    topic: str
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """To be done: grant it."""

    right: Right


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """To be done: take exactly this entry away."""

    right: Right


Action = CreateTopic | SetConfigs | Grant | Revoke


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One difference: what it is, how it is mended, and what `apply` does about it (None: nothing)."""

    mend: Mend
    what: str
    how: str
    action: Action | None = None


def wanted_topics(
    topology: Topology,
    *,
    replication: int,
    batch_bytes_max: int,
    request_retention_ms: int,
    reply_retention_ms: int,
    replies: Mapping[str, str],
) -> tuple[TopicSpec, ...]:
    """The tenant's topics as they shall be; `replies`: the reply topic of each service that has one.

    All but one of the replicas must acknowledge an append, so that one machine may fail and none lies alone.
    """
    configs = topology.configs(
        batch_bytes_max=batch_bytes_max,
        request_retention_ms=request_retention_ms,
        reply_retention_ms=reply_retention_ms,
        replies=replies.values(),
    )
    return tuple(
        TopicSpec(
            name=name,
            partitions=partitions,
            replication=replication,
            configs={
                **configs[name],
                "min.insync.replicas": str(max(1, replication - 1)),
                # A limit in bytes, as a broker may set for all topics, would cut what must stay.
                **({"retention.bytes": "-1"} if topology.row(name).retention is Retention.FOREVER else {}),
            },
        )
        for name, partitions in topology.with_replies(replies.values()).items()
    )


def compare(
    wanted: tuple[TopicSpec, ...], found: Found, *, realm: Realm | None = None, revoke: bool = False
) -> tuple[Deviation, ...]:
    """Every difference, topics first. `realm` None: rights are not looked at. `revoke`: take away what is too much."""
    deviations: list[Deviation] = []
    for spec in wanted:
        topic = found.topics.get(spec.name)
        deviations += [_missing(spec)] if topic is None else _of_topic(spec, topic)
    if realm is not None:
        deviations += _of_rights(realm, found.rights, revoke=revoke)
    return tuple(deviations)


def strangers(wanted: tuple[TopicSpec, ...], found: Found, topology: Topology) -> tuple[str, ...]:
    """Topics under the tenant's prefix that the table does not know: told, and never deleted."""
    known = {spec.name for spec in wanted}
    return tuple(name for name in sorted(found.topics) if name.startswith(topology.prefix) and name not in known)


def _missing(spec: TopicSpec) -> Deviation:
    settings = ", ".join(f"{name}={value}" for name, value in sorted(spec.configs.items()))
    what = f"topic `{spec.name}`: {spec.partitions} partitions, {spec.replication} replicas, {settings}"
    return Deviation(mend=Mend.CREATE, what=what, how=APPLY, action=CreateTopic(spec=spec))


def _of_topic(spec: TopicSpec, topic: FoundTopic) -> Iterator[Deviation]:
    name = spec.name
    if topic.partitions != spec.partitions:
        yield Deviation(
            mend=Mend.HAND,
            what=f"topic `{name}` has {topic.partitions} partitions, not {spec.partitions}",
            how=(
                f"set `SLUICEGATE_PARTITIONS` to {topic.partitions} where every topic has so many; else take a new "
                "tenant or a new epoch with topics of its own: another number moves requests to other counters"
            ),
        )
    if topic.replication != spec.replication:
        yield Deviation(
            mend=Mend.HAND,
            what=f"topic `{name}` has {topic.replication} replicas, not {spec.replication}",
            how=(
                "move its replicas with Kafka's `kafka-reassign-partitions.sh --execute`, "
                f"or set `SLUICEGATE_REPLICATION` to {topic.replication}"
            ),
        )
    wrong = {each: value for each, value in sorted(spec.configs.items()) if topic.configs.get(each) != value}
    if wrong:
        changes = ", ".join(f"{each} {topic.configs.get(each, 'unset')} -> {value}" for each, value in wrong.items())
        yield Deviation(
            mend=Mend.CHANGE,
            what=f"topic `{name}`: {changes}",
            how=APPLY,
            action=SetConfigs(topic=name, configs=wrong),
        )


def _of_rights(realm: Realm, held: frozenset[Right] | None, *, revoke: bool) -> Iterator[Deviation]:
    if held is None:
        yield Deviation(
            mend=Mend.HAND,
            what="the broker has no authorizer: everybody may read and write every topic",
            how=(
                "set `authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer` and "
                "`allow.everyone.if.no.acl.found=false` at every broker and controller"
            ),
        )
        return
    for right in sorted(realm.needed - realm.holds(held)):
        yield Deviation(mend=Mend.CREATE, what=f"right: {right}", how=APPLY, action=Grant(right=right))
    for right in sorted(held):
        why = realm.too_much(right)
        if why is None:
            continue
        what = f"right: {right}: {why}"
        if not realm.owns(right):
            how = "take it away with Kafka's `kafka-acls.sh --remove`, or name those whom it was meant for"
            yield Deviation(mend=Mend.HAND, what=what, how=how)
        elif revoke:
            yield Deviation(mend=Mend.REMOVE, what=what, how=REVOKE, action=Revoke(right=right))
        else:
            yield Deviation(mend=Mend.HAND, what=what, how=REVOKE)
