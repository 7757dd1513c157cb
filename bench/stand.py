"""A task goes in; topics, keys and gates come out, the same for every contender."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.light import LightGate
from bench.tally import Tally
from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.seal import Place
from sluicegate.enforcer.state import NotReady, Rules
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.settings import Settings
from sluicegate.streams.fetch import BrokerConfig
from sluicegate.streams.topology import BATCH_OVERHEAD_BYTES, ENFORCER, Topology

ENV, TENANT, EPOCH, PARTITIONS = "bench", "bench", 1, 2
SLICE_RECORDS = 512
EMBEDDED_WAIT_MS = 30
SESSION_TIMEOUT_S = 2.0  # the embedded broker lets a group wait for most of it before it joins
RulesAt = Callable[[int], Rules | NotReady]


def bench_settings(*, home: Path, bootstrap: str, kind: str) -> Settings:
    """The product's defaults, on this bench's broker and data directory."""
    return Settings(
        env=ENV,
        tenant=TENANT,
        home=home,
        bootstrap=bootstrap,
        epoch=EPOCH,
        partitions=PARTITIONS,
        replication=1,
        event_time="enforcer" if kind == "embedded" else "broker",  # as the product has it; here the gate reads stamps
        session_timeout_s=SESSION_TIMEOUT_S,
        fetch_wait_ms=EMBEDDED_WAIT_MS if kind == "embedded" else None,
    )


def broker_config(settings: Settings, client: str) -> BrokerConfig:
    """As `wiring.broker_config`, which a worker cannot import without every other part's libraries."""
    return BrokerConfig(
        bootstrap=settings.bootstrap,
        client_id=f"bench-{client}",
        request_timeout_s=settings.request_timeout_s,
        fetch_wait_ms=settings.fetch_wait,
        batch_bytes_max=settings.slice_bytes_max + BATCH_OVERHEAD_BYTES,
        session_timeout_s=settings.session_timeout_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of one contender: read `source` to its end, write one decision a request to `output`."""

    contender: str
    home: str
    bootstrap: str
    source: str
    output: str
    warm_up: int
    total: int
    broker: str = "kafka"
    light: bool = False
    profile: str = ""


class Stand:
    """A task with what it needs to run."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.settings = bench_settings(home=Path(task.home), bootstrap=task.bootstrap, kind=task.broker)
        self.installation = Installation(self.settings, Home(root=self.settings.home))
        self.topology = Topology(tenant=TENANT, partitions=PARTITIONS)
        self.config: BrokerConfig = broker_config(self.settings, task.contender)
        self.tally = Tally(warm_up=task.warm_up, total=task.total)
        self.group = task.output

    def place(self, partition: int) -> Place:
        """Where decisions of this run stand."""
        return decisions_place(self.task.output, partition)

    def gate(self, partition: int, rules_at: RulesAt) -> Gate | LightGate:
        """The product's gate, as `wiring` makes it, or for a light task the one that costs nothing."""
        settings = self.settings
        config = GateConfig(
            epoch=EPOCH,
            partition=partition,
            audience=proof_audience(env=ENV, topic=self.task.source),
            partition_count=PARTITIONS,
            request_bytes_max=settings.request_bytes_max,
            stale_after_ms=int(settings.stale_after_s * 1000),
            slice_bytes_max=settings.slice_bytes_max,
        )
        return LightGate(config) if self.task.light else Gate(config, rules_at)


def decisions_place(topic: str, partition: int) -> Place:
    """What the seals on one partition of a run's output must name."""
    topology = Topology(tenant=TENANT, partitions=PARTITIONS)
    return replace(topology.place(ENFORCER, env=ENV, epoch=EPOCH, partition=partition), topic=topic)
