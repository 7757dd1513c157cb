"""A stage's name and the settings go in, the running stage comes out: where adapters are joined to the pure core."""

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypedDict

from sluicegate.audit_access import audit_config
from sluicegate.broker_access import broker_config
from sluicegate.clock import StackClock
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.release import Redactor, ReleaseConfig
from sluicegate.enforcer.seal import Signer, SigningKey, Verifier
from sluicegate.enforcer.state import PolicyLog
from sluicegate.health import health_file, report_health
from sluicegate.home import Home
from sluicegate.installation import Installation, require_admitted, signer_with
from sluicegate.landing import Judge, PartitionLanding, judge_accepted, judge_policy, judge_sealed
from sluicegate.readiness import report_ready
from sluicegate.registry import ids_at_start, latest_id
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import DecisionMade, ReleaseMade
from sluicegate.serving import EngineModel, load_engine
from sluicegate.settings import Settings
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditDatabase, open_audit
from sluicegate.sinks.rows import Table
from sluicegate.sinks.serve import serving
from sluicegate.sinks.sink import Sink
from sluicegate.streams.deliver import DeliveryLane, Routes
from sluicegate.streams.enforce import run_faust
from sluicegate.streams.generate import GenerationLane
from sluicegate.streams.kafka import Broker
from sluicegate.streams.lane import Lane
from sluicegate.streams.loop import run_group
from sluicegate.streams.policy_tail import PARTITION as POLICY_PARTITION
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.ports import PartitionLane
from sluicegate.streams.release import DecisionReader, ReleaseLane, Scanners
from sluicegate.streams.topology import DELIVERY, ENFORCER, REDACTOR, RUNNER, SEALED, SINK, STAGES, Topology
from sluicegate.topics import ensure as ensure_topics
from sluicegate.topics import read_directory

logger = logging.getLogger(__name__)
DRAIN_SHARE: Final = 0.8


class GroupArguments(TypedDict):
    """Where and as whom a worker loop reads."""

    topic: str
    partitions: int
    group: str
    stopping: asyncio.Event
    session_timeout_s: float


class Process:
    """What every stage process has: settings, home, topology, a broker connection, the policy log, and when to stop."""

    def __init__(
        self,
        stage: str,
        settings: Settings,
        broker: Broker,
        stopping: asyncio.Event,
        signing_key: SigningKey | None = None,
    ) -> None:
        self.stage = stage
        self._signing_key = signing_key
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
        self.schema_ids: Mapping[int, str] = {}
        """Which of our schemas the registry knows under which id, as it said when the process started."""
        self._reported = False
        self.clock_ms: Callable[[], int | None] = self._clock.now_ms if embedded else lambda: None

    async def policy_current(self) -> None:
        """Returns once all policy is folded that stands in its log now.

        Raises:
            Unavailable: the broker does not answer.
        """
        await self.policy.reach_end(timeout_s=self.settings.request_timeout_s)

    def now_ms(self) -> int:
        """The stack's clock, milliseconds."""
        return self._clock.now_ms()

    def ready(self, detail: str = "") -> None:
        """Tells whoever started the stage that it takes work; once."""
        if not self._reported:
            self._reported = True
            report_ready(self.settings.ready_fd, detail)

    async def well(self) -> bool:
        """Whether this process works: it took work, the policy log is followed, and the broker answers now."""
        if not (self._reported and self.policy.followed):
            return False
        try:
            await self.broker.end_offset(self.topology.policy, POLICY_PARTITION)
        except Unavailable:
            return False
        return True

    def signer(self, stage: str) -> Signer:
        """What the stage seals with: the key it was given, else its newest file, as long as the policy log admits it.

        Raises:
            ConfigurationError: there is no key, or none is admitted; the text says what to type.
        """
        if self._signing_key is not None:
            own: tuple[Signer, ...] = (signer_with(self._signing_key, stage),)
        else:
            own = self.installation.stage_signers(stage)
        return require_admitted(stage, own, self.policy.stage_keys(stage), now_ms=self.now_ms())

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
async def _process(stage: str, settings: Settings, signing_key: SigningKey | None) -> AsyncIterator[Process]:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    # The runner reads and writes nothing that comes in a registry's framing.
    schema_ids = {} if stage == RUNNER else await ids_at_start(settings)
    async with Broker(broker_config(settings, stage)) as broker:
        process = Process(stage, settings, broker, stopping, signing_key)
        process.schema_ids = schema_ids
        await process.policy.start(timeout_s=settings.ready_timeout_s)
        beats = asyncio.create_task(report_health(health_file(process.home.run, stage), well=process.well))
        try:
            yield process
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            await process.policy.stop()


async def run_stage(name: str, settings: Settings, *, signing_key: SigningKey | None = None) -> None:
    """Runs one stage until SIGTERM or SIGINT. `signing_key`: what it seals with, where that is no file (a KMS, an HSM).

    Raises:
        ConfigurationError: there is no such stage, or something it needs is wrong.
        ContinuityError: a log is not the one that was sealed.
    """
    runs = {
        ENFORCER: _run_enforcer,
        RUNNER: _run_runner,
        REDACTOR: _run_redactor,
        DELIVERY: _run_delivery,
        SINK: _run_sink,
    }
    run = runs.get(name)
    if run is None:
        raise ConfigurationError(f"there is no stage `{name}`; use one of {', '.join(STAGES)}")
    async with _process(name, settings, signing_key) as process:
        await run(process)


async def prepare(settings: Settings) -> None:
    """Creates the topics and the keys of a one-box installation where they are missing.

    Raises:
        ConfigurationError, Unavailable: as `topics.ensure`; a key file is open to others.
        InvalidDirectory: the directory is none, so it is not known which reply topics there are.
    """
    installation = Installation(settings, Home(root=settings.home), development=True)
    installation.root_digest()
    installation.stage_keys()
    text = await asyncio.to_thread(read_directory, settings.directory)
    directory = installation.directory_content(text)
    await ensure_topics(settings, parse_credentials(json.loads(directory)).replies)


async def _run_enforcer(process: Process) -> None:
    settings, topology = process.settings, process.topology
    signer = process.signer(ENFORCER)

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
                schema_ids=process.schema_ids,
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
            policy_current=process.policy_current,
        )

    await run_faust(process.broker.config, **process.group(ENFORCER), make_lane=make_lane, ready=process.ready)


async def _run_redactor(process: Process) -> None:
    settings, topology = process.settings, process.topology
    signer = process.signer(REDACTOR)
    scanners = Scanners(process.policy)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        decisions = DecisionReader(
            process.broker, process.verifier(ENFORCER, partition), policy_current=process.policy_current
        )
        generations = process.verifier(RUNNER, partition)
        stage = Redactor(
            ReleaseConfig(
                epoch=settings.epoch,
                partition=partition,
                slice_bytes_max=settings.slice_bytes_max,
                schema_id=latest_id(process.schema_ids, ReleaseMade),
            ),
            generations=generations,
            decision_at=decisions.at,
            scanner_for=scanners.of,
            stopped=process.policy.stopped,
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
            schema_ids=process.schema_ids,
            policy_current=process.policy_current,
        )
        return ReleaseLane(
            inner=inner,
            stage=stage,
            decisions=decisions,
            generations=generations,
            policy_current=process.policy_current,
        )

    await run_group(process.broker.config, **process.group(REDACTOR), make_lane=make_lane, ready=process.ready)


async def _run_delivery(process: Process) -> None:
    settings, topology, policy = process.settings, process.topology, process.policy
    routes = Routes(topology, lambda: policy.replies_at(process.now_ms()))

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        return DeliveryLane(
            broker=process.broker,
            verifier=process.verifier(REDACTOR, partition),
            routes=routes,
            bytes_max=settings.slice_bytes_max,
            may_append=may_append,
            policy_current=process.policy_current,
            schema_ids=process.schema_ids,
        )

    await run_group(process.broker.config, **process.group(DELIVERY), make_lane=make_lane, ready=process.ready)


async def _run_runner(process: Process) -> None:
    settings = process.settings
    signer = process.signer(RUNNER)
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
            policy_current=process.policy_current,
            stopped=process.policy.stopped,
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


def answering(database: AuditDatabase, folder: Path) -> AbstractAsyncContextManager[object]:
    """Whoever owns the embedded engine answers for it; of a server auditors ask for themselves, as its auditor."""
    return contextlib.nullcontext() if database.classifier is None else serving(LocalAuditor(database), folder)


async def _run_sink(process: Process) -> None:
    settings, topology = process.settings, process.topology
    process.home.require_disk(settings.disk_free_mb_min)
    with open_audit(audit_config(settings, process.home, writes=True)) as database:
        sink = Sink(database, {topology.topic(table.value): table for table in Table}, process.schema_ids)
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
        async with answering(database, process.home.audit):
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
