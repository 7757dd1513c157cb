"""A tenant goes in, every name comes out: the only place that names topics, stages and consumer groups, and says which
stage writes and which stages read which topic, for how long it stays and whose clock stamps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sluicegate.enforcer.seal import Place
from sluicegate.schemas.ids import REPLY_NAME

ENFORCER: Final = "enforcer"
FRESHNESS: Final = "freshness"
RUNNER: Final = "runner"
REDACTOR: Final = "redactor"
DELIVERY: Final = "delivery"
SHADOW: Final = "shadow"
SINK: Final = "sink"
PRODUCERS: Final = "producers"
PUBLISHER: Final = "publisher"
APPLICATION: Final = "application"
"""One application: what it may read is its own reply topic, and the refusals that name nobody."""
STAGES: Final = (ENFORCER, FRESHNESS, RUNNER, REDACTOR, DELIVERY, SHADOW, SINK)
BATCH_OVERHEAD_BYTES: Final = 64 * 1024
POLICY_BYTES_MAX: Final = 16 * 1024**2
"""Of one record of the policy log: a directory of about 60,000 people, or a change of as many, is one record."""
SHORT_MS: Final = 3_600_000
"""Freshness is of no use after a minute; an hour of it is left for whoever looks what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What a stage writes: the topic's last name, the event that its seals name, and the topic it reads."""

    topic: str
    event: str
    source: str


SEALED: Final[Mapping[str, Sealed]] = {
    ENFORCER: Sealed(topic="decisions", event="decision", source="requests"),
    RUNNER: Sealed(topic="generations", event="generation", source="decisions"),
    REDACTOR: Sealed(topic="releases", event="release", source="generations"),
    SHADOW: Sealed(topic="shadow", event="shadow", source="decisions"),
}


class Retention(StrEnum):
    """How long records stay; the hours of the first two are settings."""

    REQUEST = "request"
    REPLY = "reply"
    SHORT = "short"
    FOREVER = "forever"


class Stamp(StrEnum):
    """Whose clock a record's stamp is, as Kafka's `message.timestamp.type` names it."""

    BROKER = "LogAppendTime"
    WRITER = "CreateTime"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """One row of the table. `on_path`: partition p answers partition p, so it has as many as `requests`."""

    name: str
    writer: str
    readers: frozenset[str]
    on_path: bool = True
    retention: Retention = Retention.REQUEST
    stamp: Stamp = Stamp.WRITER


_ALL: Final = frozenset(STAGES)
# Each topic has exactly one writer. Event time is the broker's where anything is decided by it.
TABLE: Final[tuple[TopicRow, ...]] = (
    TopicRow(name="requests", writer=PRODUCERS, readers=frozenset({ENFORCER, SHADOW, SINK}), stamp=Stamp.BROKER),
    # Everybody who starts later folds the policy log from its first record.
    TopicRow(
        name="policy",
        writer=PUBLISHER,
        readers=_ALL | {PUBLISHER},
        on_path=False,
        retention=Retention.FOREVER,
        stamp=Stamp.BROKER,
    ),
    # No event: nothing of it is audited, and a decision that waited for it says nothing of it.
    TopicRow(
        name="freshness",
        writer=FRESHNESS,
        readers=frozenset({ENFORCER}),
        on_path=False,
        retention=Retention.SHORT,
        stamp=Stamp.BROKER,
    ),
    TopicRow(name="decisions", writer=ENFORCER, readers=frozenset({ENFORCER, RUNNER, REDACTOR, SHADOW, SINK})),
    TopicRow(name="generations", writer=RUNNER, readers=frozenset({RUNNER, REDACTOR, SINK})),
    TopicRow(name="releases", writer=REDACTOR, readers=frozenset({REDACTOR, DELIVERY, SINK})),
    # What a candidate would have said: whoever decides, generates or releases never sees it.
    TopicRow(name="shadow", writer=SHADOW, readers=frozenset({SHADOW, SINK, PUBLISHER})),
    # Releases of requests whose sender nobody could prove: a place and a code, for every application to read.
    TopicRow(name="refusals", writer=DELIVERY, readers=frozenset({DELIVERY, APPLICATION}), retention=Retention.REPLY),
)
# One topic a reply name that the directory gives an application: `<tenant>.replies.<name>`.
REPLIES: Final = TopicRow(
    name="replies", writer=DELIVERY, readers=frozenset({DELIVERY, APPLICATION}), retention=Retention.REPLY
)
ROWS: Final[Mapping[str, TopicRow]] = {row.name: row for row in TABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The topics of one tenant; `partitions` is the same number for every topic on the request path."""

    tenant: str
    partitions: int

    def topic(self, name: str) -> str:
        """The full name of the topic whose last name is `name`.

        Raises:
            KeyError: there is no such topic.
        """
        return f"{self.tenant}.{ROWS[name].name}"

    def reply(self, name: str) -> str:
        """The reply topic that the directory calls `name`.

        Raises:
            ValueError: no reply topic may be called so.
        """
        if not REPLY_NAME.fullmatch(name):
            raise ValueError(f"`{name}` cannot name a reply topic; use lower-case letters, digits and `-`")
        return f"{self.tenant}.{REPLIES.name}.{name}"

    @property
    def requests(self) -> str:
        """What producers publish; stamped by the broker where it can."""
        return self.topic("requests")

    @property
    def decisions(self) -> str:
        """What the enforcer decided; an allow is the grant."""
        return self.topic("decisions")

    @property
    def generations(self) -> str:
        """What the runner produced (restricted)."""
        return self.topic("generations")

    @property
    def releases(self) -> str:
        """What requesters may see."""
        return self.topic("releases")

    @property
    def shadow(self) -> str:
        """What a candidate bundle would have said (restricted)."""
        return self.topic("shadow")

    @property
    def policy(self) -> str:
        """Root, stage keys, bundles and directories: one partition, so that one order holds for all."""
        return self.topic("policy")

    @property
    def freshness(self) -> str:
        """Signed promises that the policy log is complete up to a place: one partition."""
        return self.topic("freshness")

    @property
    def refusals(self) -> str:
        """Releases of requests whose sender nobody could prove."""
        return self.topic("refusals")

    @property
    def topics(self) -> Mapping[str, int]:
        """Every topic that the directory has no say in, with its number of partitions."""
        return {self.topic(row.name): self.partitions if row.on_path else 1 for row in TABLE}

    @property
    def audited(self) -> Mapping[str, int]:
        """Every topic that lands in the audit: all but the copies that applications read."""
        return {self.topic(row.name): self.topics[self.topic(row.name)] for row in TABLE if SINK in row.readers}

    def with_replies(self, names: Iterable[str]) -> Mapping[str, int]:
        """`topics` and the reply topics with these names.

        Raises:
            ValueError: no reply topic may be called so.
        """
        return {**self.topics, **{self.reply(name): self.partitions for name in sorted(set(names))}}

    def row(self, topic: str) -> TopicRow:
        """The row of the table that a full name belongs to.

        Raises:
            KeyError: the topic is none of this tenant's.
        """
        name = topic.removeprefix(self.prefix)
        family, dot, rest = name.partition(".")
        if family == REPLIES.name and dot and REPLY_NAME.fullmatch(rest):
            return REPLIES
        if name == topic or name not in ROWS:
            raise KeyError(topic)
        return ROWS[name]

    def configs(
        self,
        *,
        batch_bytes_max: int,
        request_retention_ms: int | None = None,
        reply_retention_ms: int | None = None,
        replies: Iterable[str] = (),
    ) -> Mapping[str, Mapping[str, str]]:
        """The settings each topic is created with; an embedded broker may not know them all. None: its own default."""
        hours = {
            Retention.FOREVER: -1,
            Retention.SHORT: SHORT_MS,
            Retention.REQUEST: request_retention_ms,
            Retention.REPLY: reply_retention_ms,
        }
        configs: dict[str, dict[str, str]] = {}
        for topic in self.with_replies(replies):
            row = self.row(topic)
            bytes_max = max(batch_bytes_max, POLICY_BYTES_MAX) if topic == self.policy else batch_bytes_max
            configs[topic] = {
                "max.message.bytes": str(bytes_max + BATCH_OVERHEAD_BYTES),
                "cleanup.policy": "delete",
                "message.timestamp.type": row.stamp.value,
                "unclean.leader.election.enable": "false",
            }
            retention_ms = hours[row.retention]
            if retention_ms is not None:
                configs[topic]["retention.ms"] = str(retention_ms)
            if row.retention is Retention.SHORT:
                # A broker deletes whole segments alone, and keeps one open for a week.
                configs[topic]["segment.ms"] = str(SHORT_MS)
        return configs

    def place(self, stage: str, *, env: str, epoch: int, partition: int) -> Place:
        """What the seals of `stage` must name on one partition of the topic that it writes.

        Raises:
            KeyError: the stage writes no sealed topic.
        """
        sealed = SEALED[stage]
        return Place(
            env=env,
            tenant=self.tenant,
            epoch=epoch,
            topic=self.topic(sealed.topic),
            partition=partition,
            event=sealed.event,
            stage=stage,
        )

    def source(self, stage: str) -> str:
        """The topic whose partitions the workers of `stage` share.

        Raises:
            KeyError: they share none.
        """
        return self.releases if stage == DELIVERY else self.topic(SEALED[stage].source)

    @property
    def prefix(self) -> str:
        """What every topic of this tenant begins with, and no topic of another."""
        return f"{self.tenant}."

    def group(self, stage: str) -> str:
        """The consumer group of a stage; it decides who holds which partition and nothing else."""
        return f"sluicegate.{self.tenant}.{stage}"
