"""A tenant goes in, every name comes out: the only place that names topics, stages and consumer groups, and says which
stage writes which topic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.seal import Place

ENFORCER: Final = "enforcer"
RUNNER: Final = "runner"
REDACTOR: Final = "redactor"
SINK: Final = "sink"
PRODUCERS: Final = "producers"
PUBLISHER: Final = "publisher"
BATCH_OVERHEAD_BYTES: Final = 64 * 1024


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
}
# topic -> the one stage that writes it, and whether it is on the request path (partition p answers partition p)
WRITERS: Final[Mapping[str, tuple[str, bool]]] = {
    "requests": (PRODUCERS, True),
    "policy": (PUBLISHER, False),
    **{sealed.topic: (stage, True) for stage, sealed in SEALED.items()},
}


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
        if name not in WRITERS:
            raise KeyError(name)
        return f"{self.tenant}.{name}"

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
    def policy(self) -> str:
        """Root, stage keys, bundles and directories: one partition, so that one order holds for all."""
        return self.topic("policy")

    @property
    def topics(self) -> Mapping[str, int]:
        """Every topic with its number of partitions."""
        return {self.topic(name): self.partitions if on_path else 1 for name, (_, on_path) in WRITERS.items()}

    def configs(self, *, batch_bytes_max: int) -> Mapping[str, Mapping[str, str]]:
        """The settings each topic is created with; an embedded broker may not know them all."""
        limit = str(batch_bytes_max + BATCH_OVERHEAD_BYTES)
        configs = {name: {"max.message.bytes": limit, "cleanup.policy": "delete"} for name in self.topics}
        # Event time is the broker's; everywhere else the stamp says when the writer wrote, which nobody decides on.
        configs[self.requests]["message.timestamp.type"] = "LogAppendTime"
        # Everybody who starts later folds the policy log from its first record.
        configs[self.policy]["retention.ms"] = "-1"
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
        """The topic that `stage` reads.

        Raises:
            KeyError: the stage writes no sealed topic.
        """
        return self.topic(SEALED[stage].source)

    def group(self, stage: str) -> str:
        """The consumer group of a stage; it decides who holds which partition and nothing else."""
        return f"sluicegate.{self.tenant}.{stage}"
