"""A stage's name and the settings go in, the running stage comes out: where adapters are joined to the pure core."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final, TypedDict

from sluicegate.clock import StackClock
from sluicegate.enforcer.detect import Scanner, compile_table
from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.release import Redactor, ReleaseConfig
from sluicegate.enforcer.seal import Verifier
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.landing import Judge, PartitionLanding, judge_accepted, judge_policy, judge_sealed
from sluicegate.readiness import report_ready
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import DecisionMade, ReleaseMade
from sluicegate.serving import EngineModel, load_engine
from sluicegate.settings import Settings
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.rows import Table
from sluicegate.sinks.serve import serving
from sluicegate.sinks.sink import Sink
from sluicegate.streams.enforce import run_faust
from sluicegate.streams.generate import GenerationLane
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.lane import Lane
from sluicegate.streams.loop import run_group
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.ports import PartitionLane
from sluicegate.streams.release import DecisionReader, ReleaseLane
from sluicegate.streams.topology import BATCH_OVERHEAD_BYTES, ENFORCER, REDACTOR, RUNNER, SEALED, Topology

logger = logging.getLogger(__name__)
DRAIN_SHARE: Final = 0.8
HOUR_MS: Final = 3_600_000
STAGES = ("enforcer", "runner", "redactor", "sink")


def broker_config(settings: Settings, client: str) -> BrokerConfig:
    """How a process of this installation reaches the broker."""
    return BrokerConfig(
        bootstrap=settings.bootstrap,
        client_id=f"sluicegate-{client}",
        request_timeout_s=settings.request_timeout_s,
        fetch_wait_ms=settings.fetch_wait_ms,
        batch_bytes_max=settings.slice_bytes_max + BATCH_OVERHEAD_BYTES,
        session_timeout_s=settings.session_timeout_s,
    )


class Scanners:
    """The compiled redaction rules of every bundle in the policy log, by bundle digest, compiled once."""

    def __init__(self, policy: PolicyTail) -> None:
        self._policy = policy
        self._scanners: dict[str, Scanner] = {}

    def of(self, bundle_digest: str) -> Scanner | None:
        """None where no accepted bundle has this digest."""
        found = self._scanners.get(bundle_digest)
        if found is None:
            bundle = self._policy.state.bundle(bundle_digest)
            if bundle is None:
                return None
            found = self._scanners[bundle_digest] = compile_table(bundle.redaction)
        return found


class GroupArguments(TypedDict):
    """Where and as whom a worker loop reads."""

    topic: str
    partitions: int
    group: str
    stopping: asyncio.Event
    session_timeout_s: float


class Process:
    """What every stage process has: settings, home, topology, a broker connection, the policy log, and when to stop."""

    def __init__(self, stage: str, settings: Settings, broker: Broker, stopping: asyncio.Event) -> None:
        self.stage = stage
        self.settings = settings
        self.home = Home(root=settings.home)
        self.broker = broker
        self.stopping = stopping
        self.installation = Installation(settings, self.home)
        self.topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        embedded = settings.event_time == "enforcer"
        self._clock = StackClock(self.home.root if embedded else None)
        self.policy = PolicyTail(
            broker,
            topic=self.topology.policy,
            state=PolicyLog(domain=self.installation.domain, root_digest=self.installation.root_digest()),
        )
        self._reported = False
        self.clock_ms: Callable[[], int | None] = self._clock.now_ms if embedded else lambda: None

    def now_ms(self) -> int:
        """The stack's clock, milliseconds."""
        return self._clock.now_ms()

    def ready(self, detail: str = "") -> None:
        """Tells whoever started the stage that it takes work; once."""
        if not self._reported:
            self._reported = True
            report_ready(self.settings.ready_fd, detail)

    def group(self, stage: str) -> GroupArguments:
        """What a worker loop needs to join the stage's consumer group."""
        return {
            "topic": self.topology.source(stage),
            "partitions": self.settings.partitions,
            "group": self.topology.group(stage),
            "stopping": self.stopping,
            "session_timeout_s": self.settings.session_timeout_s,
        }

    def judge(self, topic: str, partition: int) -> Callable[[int], Judge]:
        """Tells effective records of a topic from void ones, for the audit."""
        if topic == self.topology.requests:
            return lambda _: judge_accepted
        if topic == self.topology.policy:
            digest = self.installation.root_digest()
            return lambda _: judge_policy(PolicyLog(domain=self.installation.domain, root_digest=digest))
        stage = next(name for name, sealed in SEALED.items() if self.topology.topic(sealed.topic) == topic)
        return lambda start: judge_sealed(self.verifier(stage, partition), start=start)

    def verifier(self, stage: str, partition: int) -> Verifier:
        """Verifies what `stage` writes on one partition, under the stage keys admitted now."""
        place = self.topology.place(stage, env=self.settings.env, epoch=self.settings.epoch, partition=partition)
        return Verifier(place, lambda: self.policy.stage_keys(stage))


@contextlib.asynccontextmanager
async def _process(stage: str, settings: Settings) -> AsyncIterator[Process]:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    async with Broker(broker_config(settings, stage)) as broker:
        process = Process(stage, settings, broker, stopping)
        await process.policy.start(timeout_s=settings.ready_timeout_s)
        try:
            yield process
        finally:
            await process.policy.stop()


async def run_stage(name: str, settings: Settings) -> None:
    """Runs one stage until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: there is no such stage, or something it needs is wrong.
        ContinuityError: a log is not the one that was sealed.
    """
    runs = {"enforcer": _run_enforcer, "runner": _run_runner, "redactor": _run_redactor, "sink": _run_sink}
    run = runs.get(name)
    if run is None:
        raise ConfigurationError(f"there is no stage `{name}`; use one of {', '.join(STAGES)}")
    async with _process(name, settings) as process:
        await run(process)


async def prepare(settings: Settings) -> None:
    """Creates the topics and the keys of this installation where they are missing.

    Raises:
        ConfigurationError, Unavailable: as `Broker.create_topics`; a key file is open to others.
    """
    installation = Installation(settings, Home(root=settings.home))
    installation.root_digest()
    installation.stage_keys()
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    async with Broker(broker_config(settings, "prepare")) as broker:
        configs = topology.configs(
            batch_bytes_max=settings.slice_bytes_max,
            request_retention_ms=settings.request_retention_h * HOUR_MS,
            reply_retention_ms=settings.reply_retention_h * HOUR_MS,
        )
        await broker.create_topics(topology.topics, configs)


async def _run_enforcer(process: Process) -> None:
    settings, topology = process.settings, process.topology
    signer = process.installation.stage_signer(ENFORCER)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        gate = Gate(
            GateConfig(
                epoch=settings.epoch,
                partition=partition,
                audience=proof_audience(env=settings.env, topic=topology.requests),
                partition_count=settings.partitions,
                request_bytes_max=settings.request_bytes_max,
                stale_after_ms=int(settings.stale_after_s * 1000),
                slice_bytes_max=settings.slice_bytes_max,
            ),
            process.policy.rules_at,
        )
        return Lane(
            broker=process.broker,
            source_topic=topology.requests,
            verifier=process.verifier(ENFORCER, partition),
            stage=gate,
            signer=signer,
            output=DecisionMade,
            slice_bytes_max=settings.slice_bytes_max,
            clock_ms=process.clock_ms,
            may_append=may_append,
        )

    await run_faust(process.broker.config, **process.group(ENFORCER), make_lane=make_lane, ready=process.ready)


async def _run_redactor(process: Process) -> None:
    settings, topology = process.settings, process.topology
    signer = process.installation.stage_signer(REDACTOR)
    scanners = Scanners(process.policy)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        decisions = DecisionReader(process.broker, process.verifier(ENFORCER, partition))
        stage = Redactor(
            ReleaseConfig(epoch=settings.epoch, partition=partition, slice_bytes_max=settings.slice_bytes_max),
            generations=process.verifier(RUNNER, partition),
            decision_at=decisions.at,
            scanner_for=scanners.of,
        )
        inner = Lane(
            broker=process.broker,
            source_topic=topology.generations,
            verifier=process.verifier(REDACTOR, partition),
            stage=stage,
            signer=signer,
            output=ReleaseMade,
            slice_bytes_max=settings.slice_bytes_max,
            may_append=may_append,
        )
        return ReleaseLane(inner=inner, stage=stage, decisions=decisions)

    await run_group(process.broker.config, **process.group(REDACTOR), make_lane=make_lane, ready=process.ready)


async def _run_runner(process: Process) -> None:
    settings = process.settings
    signer = process.installation.stage_signer(RUNNER)
    engine = await asyncio.to_thread(load_engine, settings, process.home.models)
    model = EngineModel(engine, model_id=settings.model_id, now_ms=process.now_ms)
    detail = f"{settings.model_name} {settings.model_provider}"

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        return GenerationLane(
            broker=process.broker,
            model=model,
            decisions=process.verifier(ENFORCER, partition),
            generations=process.verifier(RUNNER, partition),
            signer=signer,
            window_size=settings.window_size,
            slice_bytes_max=settings.slice_bytes_max,
            clock_ms=process.now_ms,
            may_append=may_append,
        )

    try:
        await run_group(
            process.broker.config,
            **process.group(RUNNER),
            make_lane=make_lane,
            ready=lambda: process.ready(detail),
        )
    finally:
        model.close()


async def _run_sink(process: Process) -> None:
    settings, topology = process.settings, process.topology
    process.home.require_disk(settings.disk_free_mb_min)
    with open_audit(AuditConfig(path=process.home.audit)) as database:
        sink = Sink(database, {topology.topic(table.value): table for table in Table})
        lock = asyncio.Lock()
        landings = [
            PartitionLanding(
                broker=process.broker,
                sink=sink,
                lock=lock,
                epoch=settings.epoch,
                topic=topic,
                partition=partition,
                judge_from=process.judge(topic, partition),
                whole=topic == topology.policy,
                wait_s=settings.sink_batch_wait_ms / 1000,
            )
            for topic, count in topology.audited.items()
            for partition in range(count)
        ]
        tails = [await each.start() for each in landings]
        async with serving(LocalAuditor(database), process.home.audit):
            tasks = [asyncio.create_task(each.follow(tail)) for each, tail in zip(landings, tails, strict=True)]
            process.ready()
            stop = asyncio.create_task(process.stopping.wait())
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in done if task is not stop]
            if not failed:
                async with asyncio.timeout(settings.stop_timeout_s * DRAIN_SHARE):
                    await asyncio.gather(*(each.landed() for each in landings))
            for task in (stop, *tasks):
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            for tail in tails:
                await tail.aclose()
            for task in failed:
                task.result()
