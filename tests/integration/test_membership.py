"""Named workers on Apache Kafka: a restart moves no partition, and two workers of one name end with an error."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from streams_worker import MODULES, SHELLS, lane

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.lane import Lane
from sluicegate.streams.topology import ENFORCER, Topology

SESSION_TIMEOUT_S = 6.0
PARTITIONS = 4
LIMIT_S = 30.0


@dataclass
class Worker:
    """One worker of the group, in this process."""

    task: asyncio.Task[None]
    stopping: asyncio.Event
    ready: asyncio.Event
    made: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)

    async def leave(self) -> None:
        self.stopping.set()
        await self.task


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(apache_kafka: str) -> BrokerConfig:
    return BrokerConfig(bootstrap=apache_kafka, client_id="test", fetch_wait_ms=20)


@pytest.fixture
def topology() -> Topology:
    return Topology(tenant=f"m{next(NUMBERS)}", partitions=PARTITIONS)


NUMBERS = iter(range(1, 1000))


def start(shell: str, broker: Broker, topology: Topology, name: str | None) -> Worker:
    run: Callable[..., Awaitable[None]] = getattr(importlib.import_module(MODULES[shell]), SHELLS[shell])
    made: list[int] = []
    held: set[int] = set()
    stopping, ready = asyncio.Event(), asyncio.Event()

    def make(partition: int, may_append: Callable[[], bool]) -> Lane:
        made.append(partition)
        held.add(partition)
        found = lane(broker, topology, partition, may_append)
        close = found.close

        async def closed() -> None:
            held.discard(partition)
            await close()

        found.close = closed
        return found

    running = run(
        replace(broker.config, instance_id=name),
        topic=topology.requests,
        partitions=PARTITIONS,
        group=topology.group(ENFORCER),
        stopping=stopping,
        session_timeout_s=SESSION_TIMEOUT_S,
        make_lane=make,
        ready=ready.set,
    )
    task = asyncio.ensure_future(running)
    return Worker(task=task, stopping=stopping, ready=ready, made=made, held=held)


async def until(claim: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    async with asyncio.timeout(limit_s):
        while not claim():  # noqa: ASYNC110 - another worker tells nobody
            await asyncio.sleep(0.02)


async def together(first: Worker, second: Worker) -> None:
    """Returns once both hold their half."""
    half = PARTITIONS // 2
    await until(lambda: len(first.held) == len(second.held) == half and len(first.held | second.held) == PARTITIONS)


@pytest.mark.parametrize("named", [True, False])
async def test_a_named_worker_that_starts_again_moves_no_partition(
    shell: str, config: BrokerConfig, topology: Topology, named: bool
) -> None:
    """The control is the same with workers that have no name: there every restart moves everything, twice."""
    async with Broker(config) as broker:
        await broker.create_topics(topology.topics)
        names = ("one", "two") if named else (None, None)
        first, second = (start(shell, broker, topology, name) for name in names)
        try:
            await together(first, second)
            before, held = len(first.made), set(second.held)
            await second.leave()
            second = start(shell, broker, topology, names[1])
            if named:
                await until(lambda: second.held == held)
                await asyncio.sleep(2.0)
                assert len(first.made) == before
                assert len(second.made) == len(held)
            else:
                await together(first, second)
                assert len(first.made) > before
        finally:
            await asyncio.gather(first.leave(), second.leave())


async def test_two_workers_of_one_name_do_not_take_turns(shell: str, config: BrokerConfig, topology: Topology) -> None:
    async with Broker(config) as broker:
        await broker.create_topics(topology.topics)
        first = start(shell, broker, topology, "one")
        await asyncio.wait_for(first.ready.wait(), LIMIT_S)
        second = start(shell, broker, topology, "one")
        try:
            with pytest.raises(ConfigurationError, match=r"runs as `one`: .* `SLUICEGATE_INSTANCE_ID` of its own"):
                await asyncio.wait_for(first.task, LIMIT_S)
            await until(lambda: sorted(second.made) == list(range(PARTITIONS)))
            await asyncio.sleep(2.0)
            assert not second.task.done()
        finally:
            await second.leave()
            with suppress(ConfigurationError):
                await first.leave()
