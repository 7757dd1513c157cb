"""Delivery on a broker: every release once or more in its one topic, under `kill -9` and under a rogue writer."""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import delivery_worker
import pytest
from delivery_worker import REPLIES, verifier
from fixtures_stack import settings_from
from releases import copied, release
from stages import signer

from sluicegate.enforcer.seal import Effective, seal_slice, verify_copy
from sluicegate.schemas import codec
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import REDACTOR, Topology
from sluicegate.topics import require_replies

WORKER = Path(delivery_worker.__file__)
ACTORS = ("desk", "desk", "batch", None, "desk")
SLICES = 60
SLICE = 5
KILLS = 4
LIMIT_S = 60.0
Found = dict[str, list[int]]


@pytest.fixture
async def broker(broker_config: BrokerConfig, topology: Topology) -> AsyncIterator[Broker]:
    async with Broker(broker_config) as opened:
        await opened.create_topics(topology.with_replies(REPLIES.values()))
        yield opened


def actor_of(offset: int) -> str | None:
    return ACTORS[offset % len(ACTORS)]


async def seal_and_append(broker: Broker, topology: Topology, partition: int, source: int) -> list[int]:
    """One slice of releases, sealed again and again until it lands where it was sealed for; the offsets it has."""
    place = topology.place(REDACTOR, env="test", epoch=1, partition=partition)
    while True:
        at = await broker.end_offset(place.topic, partition)
        made = [release(at + each, actor_of(source + each)) for each in range(SLICE)]
        batch = seal_slice(
            [Unsent(key=b"k", value=codec.encode(each)) for each in made],
            place=place,
            at=at,
            source_first=source,
            source_last=source + SLICE - 1,
            time_ms=1_000 + source,
            policy_position=0,
            signer=signer("redactor"),
        )
        if await broker.append(place.topic, partition, batch) == at:
            return list(range(at, at + SLICE))


async def write(broker: Broker, topology: Topology, pause_s: float) -> dict[int, Found]:
    """Releases on every partition; for each partition, the offsets that must arrive at each topic."""
    wanted: dict[int, Found] = {each: {topic: [] for topic in topics(topology)} for each in range(topology.partitions)}
    for number in range(SLICES):
        for partition in range(topology.partitions):
            offsets = await seal_and_append(broker, topology, partition, number * SLICE)
            for source, offset in enumerate(offsets, start=number * SLICE):
                name = actor_of(source)
                topic = topology.refusals if name is None else topology.reply(REPLIES[name])
                wanted[partition][topic].append(offset)
        await asyncio.sleep(pause_s)
    return wanted


def topics(topology: Topology) -> tuple[str, ...]:
    return (topology.refusals, *(topology.reply(name) for name in REPLIES.values()))


async def read(broker: Broker, topic: str, partition: int) -> list[Record]:
    return [record async for batch in broker.read(topic, partition, start=0) for record in batch]


async def arrived(broker: Broker, topology: Topology, partition: int) -> tuple[Found, int]:
    """The offsets of the genuine copies in each topic, in order of first appearance, and how many are repeats."""
    found: Found = {}
    repeats = 0
    check = verifier(topology, partition)
    for topic in topics(topology):
        verdicts = [verify_copy(check, record) for record in await read(broker, topic, partition)]
        offsets = [each.record.offset for each in verdicts if isinstance(each, Effective)]
        found[topic] = list(dict.fromkeys(offsets))
        repeats += len(offsets) - len(found[topic])
    return found, repeats


async def all_arrived(broker: Broker, topology: Topology, wanted: dict[int, Found]) -> int:
    """Waits until every release stands in its topic and in no other; how many repeats there are."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        states = {partition: await arrived(broker, topology, partition) for partition in wanted}
        found = {
            partition: {topic: sorted(each) for topic, each in state[0].items()} for partition, state in states.items()
        }
        if found == wanted:
            return sum(repeats for _, repeats in states.values())
        assert time.monotonic() < deadline, {
            topic: (len(offsets), len(wanted[partition][topic]))
            for partition, each in found.items()
            for topic, offsets in each.items()
        }
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def worker(config: BrokerConfig, topology: Topology) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), config.bootstrap, topology.tenant, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_releases_arrive_in_order_without_repeats(
    broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    """The control of the two below: nobody is killed, nobody else writes."""
    async with worker(broker_config, topology):
        wanted = await write(broker, topology, 0.0)
        assert await all_arrived(broker, topology, wanted) == 0
    for partition in wanted:
        found, _ = await arrived(broker, topology, partition)
        assert found == wanted[partition], "in the order of the log"


async def test_workers_that_are_killed_lose_nothing(
    broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    """Invariant 3, with releases on their way at every kill."""
    chance = random.Random(11)
    writing = asyncio.create_task(write(broker, topology, 0.1))
    for _ in range(KILLS):
        async with worker(broker_config, topology) as process:
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            process.kill()
    async with worker(broker_config, topology):
        repeats = await all_arrived(broker, topology, await writing)
    assert repeats <= KILLS * 2 * 128 * topology.partitions


async def rogue(broker: Broker, topology: Topology) -> None:
    """Writes for ever: into `releases` what nobody sealed, into reply topics forged and old copies, and garbage."""
    while True:
        for partition in range(topology.partitions):
            stored = await read(broker, topology.releases, partition)
            genuine = [copied(each) for each in stored if each.headers][:20]
            forged = [Unsent(key=each.key, value=each.value + b"\x00", headers=each.headers) for each in genuine]
            garbage = [Unsent(key=None, value=b"garbage")] * 20
            await broker.append(topology.releases, partition, [*genuine[:3], *forged[:3], *garbage])
            for topic in topics(topology):
                await broker.append(topic, partition, [*forged, *garbage])
            if genuine:
                await broker.append(topology.refusals, partition, genuine)
        await asyncio.sleep(0.05)


async def test_a_rogue_writer_neither_stalls_nor_advances_delivery(
    broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    """Invariant 2: with the rogue at work, workers are killed, and every genuine release still arrives."""
    writing = asyncio.create_task(write(broker, topology, 0.05))
    writer = asyncio.create_task(rogue(broker, topology))
    for _ in range(2):
        async with worker(broker_config, topology) as process:
            await asyncio.sleep(0.7)
            process.kill()
    async with worker(broker_config, topology):
        wanted = await writing
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        deadline = time.monotonic() + LIMIT_S
        for partition in wanted:
            while True:
                found, _ = await arrived(broker, topology, partition)
                missing = {topic: set(wanted[partition][topic]) - set(found[topic]) for topic in found}
                if not any(missing.values()):
                    break
                assert time.monotonic() < deadline, {topic: len(each) for topic, each in missing.items()}
                await asyncio.sleep(0.2)
            foreign = len(await read(broker, topology.reply("desk"), partition)) - len(found[topology.reply("desk")])
            assert foreign > 0, "the rogue wrote nothing, so this says nothing"


async def test_a_directory_that_names_a_missing_reply_topic_is_refused(
    broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    found = settings_from(
        {
            "SLUICEGATE_BOOTSTRAP": broker_config.bootstrap,
            "SLUICEGATE_TENANT": topology.tenant,
            "SLUICEGATE_PARTITIONS": str(topology.partitions),
        }
    )
    await require_replies(found, REPLIES)
    with pytest.raises(InvalidDirectory, match=r"`late-app` has no topic `.*replies.late`.*`sluicegate topics apply`"):
        await require_replies(found, {**REPLIES, "late-app": "late"})
    await broker.create_topics({topology.reply("late"): topology.partitions})
    await require_replies(found, {**REPLIES, "late-app": "late"})
