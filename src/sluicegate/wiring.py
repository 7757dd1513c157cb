"""A stage's name and the settings go in, the running stage comes out: where adapters are joined to the pure core."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from sluicegate.audit_access import audit_config
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.gate import Gate, GateConfig
from sluicegate.enforcer.identity import proof_audience
from sluicegate.enforcer.release import Redactor, ReleaseConfig
from sluicegate.enforcer.seal import SigningKey
from sluicegate.enforcer.shadow_stage import ShadowConfig, ShadowStage
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.landing import PartitionLanding
from sluicegate.process import Process, stage_process
from sluicegate.registry import latest_id
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import DecisionMade, ReleaseMade
from sluicegate.schemas.shadow_events import ShadowDecided
from sluicegate.serving import EngineModel, load_engine
from sluicegate.settings import Settings
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditDatabase, open_audit
from sluicegate.sinks.rows import Table
from sluicegate.sinks.serve import serving
from sluicegate.sinks.sink import Sink
from sluicegate.streams.deliver import DeliveryLane, Routes
from sluicegate.streams.enforce import run_faust
from sluicegate.streams.freshness_tail import FreshnessTail
from sluicegate.streams.freshness_writer import Demand, FreshnessWriter, always
from sluicegate.streams.generate import GenerationLane
from sluicegate.streams.lane import Lane
from sluicegate.streams.loop import run_group
from sluicegate.streams.ports import PartitionLane
from sluicegate.streams.release import DecisionReader, ReleaseLane, Scanners
from sluicegate.streams.shadow import RequestReader, ShadowLane
from sluicegate.streams.topology import DELIVERY, ENFORCER, FRESHNESS, REDACTOR, RUNNER, SHADOW, SINK, STAGES
from sluicegate.topics import ensure as ensure_topics
from sluicegate.topics import read_directory

logger = logging.getLogger(__name__)
DRAIN_SHARE: Final = 0.8


async def run_stage(name: str, settings: Settings, *, signing_key: SigningKey | None = None) -> None:
    """Runs one stage until SIGTERM or SIGINT. `signing_key`: what it seals with, where that is no file (a KMS, an HSM).

    Raises:
        ConfigurationError: there is no such stage, or something it needs is wrong.
        ContinuityError: a log is not the one that was sealed.
    """
    runs = {
        ENFORCER: _run_enforcer,
        FRESHNESS: _run_freshness,
        RUNNER: _run_runner,
        REDACTOR: _run_redactor,
        DELIVERY: _run_delivery,
        SHADOW: _run_shadow,
        SINK: _run_sink,
    }
    run = runs.get(name)
    if run is None:
        raise ConfigurationError(f"there is no stage `{name}`; use one of {', '.join(STAGES)}")
    async with stage_process(name, settings, signing_key) as process:
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
    freshness = FreshnessTail(
        process.broker,
        topic=topology.freshness,
        policy=process.policy,
        domain=process.installation.domain,
        stale_after_ms=int(settings.policy_stale_after_s * 1000),
    )
    await freshness.start()

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
            freshness.rules_at,
        )
        return Lane(
            broker=process.broker,
            may_decide=freshness.may_decide,
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

    try:
        await run_faust(process.broker.config, **process.group(ENFORCER), make_lane=make_lane, ready=process.ready)
    finally:
        await freshness.stop()


async def _run_freshness(process: Process) -> None:
    writer = FreshnessWriter(
        process.broker,
        topic=process.topology.freshness,
        policy=process.policy,
        domain=process.installation.domain,
        signer_for=process.freshness_signer,
        clock_ms=process.clock_ms,
        now_ms=process.now_ms,
        timeout_s=process.settings.request_timeout_s,
    )
    settings = process.settings
    # The embedded broker keeps all in memory, for as long as it runs.
    embedded = settings.event_time == "enforcer"
    demand = Demand(process.broker, topic=process.topology.requests, partitions=settings.partitions)
    await writer.run(process.stopping, ready=process.ready, wanted=demand if embedded else always)


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


async def _run_shadow(process: Process) -> None:
    settings, topology, policy = process.settings, process.topology, process.policy
    signer = process.signer(SHADOW)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> PartitionLane:
        decisions = process.verifier(ENFORCER, partition)
        requests = RequestReader(process.broker, topology.requests, partition)
        stage = ShadowStage(
            ShadowConfig(slice_bytes_max=settings.slice_bytes_max, schema_ids=process.schema_ids),
            decisions=decisions,
            request_at=requests.at,
            shadow_at=policy.state.shadow_at,
        )
        inner = Lane(
            broker=process.broker,
            source_topic=topology.decisions,
            verifier=process.verifier(SHADOW, partition),
            stage=stage,
            signer=signer,
            output=ShadowDecided,
            slice_bytes_max=settings.slice_bytes_max,
            may_append=may_append,
            policy_current=process.policy_current,
            passes_deleted=True,
        )
        return ShadowLane(
            inner=inner,
            stage=stage,
            log=process.broker,
            requests=requests,
            decisions=decisions,
            over=policy.state.candidates.over,
            policy_current=process.policy_current,
        )

    await run_group(process.broker.config, **process.group(SHADOW), make_lane=make_lane, ready=process.ready)


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

    await run_group(
        process.broker.config,
        **process.group(RUNNER),
        make_lane=make_lane,
        ready=lambda: process.ready(detail),
    )


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
