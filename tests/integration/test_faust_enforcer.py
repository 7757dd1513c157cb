"""Both worker shells on the embedded broker: one effective output a request under a rogue, `kill -9`, handing over."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import streams_worker
from counting import Counting, Report, check_one_to_one
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from streams_worker import KEY, SESSION_TIMEOUT_S, SHELLS, serve, verifier

from sluicegate.enforcer.seal import Signer, seal_slice
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.records import Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import ENFORCER, Topology

WORKER = Path(streams_worker.__file__)
ROGUE = Signer(key_id=KEY.key_id, private=Ed25519PrivateKey.from_private_bytes(b"\x08" * 32))
shells = pytest.mark.parametrize("shell", sorted(SHELLS))


@pytest.fixture
async def broker(broker_config: BrokerConfig, topology: Topology) -> AsyncIterator[Broker]:
    async with Broker(broker_config) as opened:
        await opened.create_topics(topology.topics)
        yield opened


async def publish(broker: Broker, topology: Topology, count: int, *, pause_s: float = 0.0) -> None:
    """`count` requests over the partitions, ten at a time."""
    for first in range(0, count, 10 * topology.partitions):
        for partition in range(topology.partitions):
            values = [b"%d/%d" % (first, each) for each in range(10)]
            await broker.append(topology.requests, partition, [Unsent(key=b"k", value=value) for value in values])
        await asyncio.sleep(pause_s)


async def reports(broker: Broker, topology: Topology) -> list[Report]:
    return [
        await check_one_to_one(broker, verifier(topology, partition), source_topic=topology.requests)
        for partition in range(topology.partitions)
    ]


async def all_answered(broker: Broker, topology: Topology, count: int, *, limit_s: float) -> list[Report]:
    """The reports once every request has an output; fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        ends = [await broker.end_offset(topology.decisions, each) for each in range(topology.partitions)]
        found = await reports(broker, topology) if sum(ends) >= count else []
        if found and sum(report.answered for report in found) == count:
            return found
        assert time.monotonic() < deadline, (ends, found)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def worker(shell: str, config: BrokerConfig, topology: Topology) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process that has said that it is ready; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), shell, config.bootstrap, topology.tenant, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def forge_and_replay(broker: Broker, topology: Topology) -> None:
    """Writes into the output for ever: sealed by a stranger's key for the very next offset, copied, and garbage."""
    while True:
        for partition in range(topology.partitions):
            place = topology.place(ENFORCER, env="test", epoch=1, partition=partition)
            at = await broker.end_offset(place.topic, partition)
            forged = seal_slice(
                [Unsent(key=None, value=b"forged")],
                place=place,
                at=at,
                source_first=at,
                source_last=at,
                time_ms=0,
                policy_position=0,
                signer=ROGUE,
            )
            await broker.append(place.topic, partition, forged)
            stored = [r async for batch in broker.read(place.topic, partition, start=max(0, at - 40)) for r in batch]
            for old in stored[:2]:
                copy = Unsent(key=old.key, value=old.value or b"", headers=old.headers)
                await broker.append(place.topic, partition, [copy, Unsent(key=None, value=b"garbage")])
        await asyncio.sleep(0.01)


@shells
async def test_every_request_gets_one_output_whatever_a_rogue_writes(
    shell: str, broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    stopping, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(shell, broker_config, topology, stopping, ready.set))
    rogue = asyncio.create_task(forge_and_replay(broker, topology))
    await publish(broker, topology, 2_000, pause_s=0.002)
    found = await all_answered(broker, topology, 2_000, limit_s=30)
    rogue.cancel()
    await asyncio.gather(rogue, return_exceptions=True)
    assert ready.is_set()
    assert all(report.sound for report in found), found
    assert all(report.void > 10 for report in found), found
    # Longer than the lease: it is held only if heartbeats renew it.
    await asyncio.sleep(SESSION_TIMEOUT_S)
    await publish(broker, topology, 20)
    found = await all_answered(broker, topology, 2_020, limit_s=10)
    assert all(report.sound for report in found), found
    stopping.set()
    await asyncio.wait_for(serving, 10)


@contextlib.asynccontextmanager
async def requests_flow(broker: Broker, topology: Topology) -> AsyncIterator[list[int]]:
    """Publishes for as long as the block runs; the one number in the list is how many requests there are so far."""
    count = [0]

    async def flow() -> None:
        while True:
            await publish(broker, topology, 20, pause_s=0.03)
            count[0] += 20

    flowing = asyncio.create_task(flow())
    try:
        yield count
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        ends = [await broker.end_offset(topology.requests, each) for each in range(topology.partitions)]
        count[0] = sum(ends)


@shells
async def test_a_worker_that_is_killed_loses_and_doubles_nothing(
    shell: str, broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    async def answered() -> int:
        return sum([await broker.end_offset(topology.decisions, each) for each in range(topology.partitions)])

    async with requests_flow(broker, topology) as count:
        for _ in range(2):
            before = await answered()
            async with worker(shell, broker_config, topology) as process:
                async with asyncio.timeout(30):
                    while await answered() == before:
                        assert process.returncode is None
                        await asyncio.sleep(0.01)
                process.kill()
                await process.wait()
    async with worker(shell, broker_config, topology) as last:
        found = await all_answered(broker, topology, count[0], limit_s=30)
        assert all(report.sound for report in found), found
        last.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(last.wait(), 10) == 0


@shells
async def test_workers_that_join_and_leave_hand_over(
    shell: str, broker: Broker, broker_config: BrokerConfig, topology: Topology
) -> None:
    stopping = [asyncio.Event(), asyncio.Event()]
    ready = [asyncio.Event(), asyncio.Event()]
    workers = []
    async with requests_flow(broker, topology) as count:
        for mine in (0, 1):
            run = serve(shell, broker_config, topology, stopping[mine], ready[mine].set)
            workers.append(asyncio.create_task(run))
            await asyncio.wait_for(ready[mine].wait(), 20)
        await asyncio.sleep(0.5)
        ready[1].clear()
        stopping[0].set()
        await asyncio.wait_for(workers[0], 10)
        await asyncio.wait_for(ready[1].wait(), 20)
    found = await all_answered(broker, topology, count[0], limit_s=30)
    assert all(report.sound for report in found), found
    stopping[1].set()
    await asyncio.wait_for(workers[1], 10)


@shells
async def test_a_bug_in_the_stage_stops_the_worker_and_acknowledges_nothing(
    shell: str,
    broker: Broker,
    broker_config: BrokerConfig,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(Counting, "decide", broken)
    await publish(broker, topology, 20)
    with pytest.raises(KeyError, match="bug"):
        await asyncio.wait_for(serve(shell, broker_config, topology, asyncio.Event(), lambda: None), 20)
    assert [await broker.end_offset(topology.decisions, each) for each in range(2)] == [0, 0]


@shells
async def test_a_missing_topic_is_told_and_not_created(shell: str, broker_config: BrokerConfig) -> None:
    absent = Topology(tenant="absent", partitions=2)
    with pytest.raises(ConfigurationError, match="create the topics first"):
        await serve(shell, broker_config, absent, asyncio.Event(), lambda: None)
