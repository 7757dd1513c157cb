"""Broker adapter and lane on the embedded broker: exact offsets, exact ends, one output a request under a rogue."""

import asyncio
import random

import pytest
from counting import check_one_to_one
from streams_worker import lane, verifier

from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology


def unsent(*values: bytes) -> list[Unsent]:
    return [Unsent(key=b"k", value=value, headers=(("h", b"1"),)) for value in values]


async def every(broker: Broker, topic: str, start: int = 0, end: int | None = None) -> list[Record]:
    return [record async for batch in broker.read(topic, 0, start=start, end=end) for record in batch]


async def test_acknowledged_base_offsets_and_ends_are_exact_under_concurrent_writers(
    broker_config: BrokerConfig, topology: Topology
) -> None:
    landed: list[tuple[int, list[bytes]]] = []

    async def write(number: int) -> None:
        chance = random.Random(number)
        async with Broker(broker_config) as broker:
            for turn in range(50):
                values = [b"%d/%d/%d" % (number, turn, each) for each in range(chance.randint(1, 20))]
                landed.append((await broker.append(topology.requests, 0, unsent(*values)), values))

    async with Broker(broker_config) as broker:
        await broker.create_topics(topology.topics)
        await asyncio.gather(*(write(number) for number in range(3)))
        records = await every(broker, topology.requests)
        assert [record.offset for record in records] == list(range(sum(len(values) for _, values in landed)))
        wrong = [base for base, values in landed if [r.value for r in records[base : base + len(values)]] != values]
        assert (len(landed), wrong) == (150, [])
        assert await broker.end_offset(topology.requests, 0) == len(records)
        assert await broker.start_offset(topology.requests, 0) == 0
        middle = max(landed, key=lambda each: len(each[1]))[0] + 1
        assert [r.offset for r in await every(broker, topology.requests, middle, middle + 2)] == [middle, middle + 1]


async def test_a_tail_has_caught_up_only_when_its_reader_came_back_for_more(
    broker_config: BrokerConfig, topology: Topology
) -> None:
    async with Broker(broker_config) as broker:
        await broker.create_topics(topology.topics)
        await broker.append(topology.policy, 0, unsent(b"1", b"2"))
        tail = broker.tail(topology.policy, 0, start=0)
        assert [record.value for record in await anext(tail)] == [b"1", b"2"]
        assert not tail.caught_up.is_set()
        more = asyncio.create_task(anext(tail))
        await asyncio.wait_for(tail.caught_up.wait(), 5)
        assert tail.position == 2
        await broker.append(topology.policy, 0, unsent(b"3"))
        assert [record.value for record in await asyncio.wait_for(more, 5)] == [b"3"]
        await tail.aclose()


async def test_what_cannot_be_done_is_one_of_our_errors(broker_config: BrokerConfig, topology: Topology) -> None:
    async with Broker(broker_config) as broker:
        await broker.create_topics(topology.topics)
        await broker.create_topics(topology.topics)
        with pytest.raises(ConfigurationError, match="2 partitions, not 3"):
            await broker.create_topics({topology.requests: 3})
        with pytest.raises(ConfigurationError, match="create the topics first"):
            await broker.append("nowhere", 0, unsent(b"x"))
        with pytest.raises(ConfigurationError, match="create the topics first"):
            await broker.end_offset(topology.requests, 2)
        with pytest.raises(ValueError, match="over the limit"):
            await broker.append(topology.requests, 0, unsent(b"x" * 300_000) * 4)
        with pytest.raises(ContinuityError, match="cut or recreated"):
            await every(broker, topology.requests, start=7)
        assert await every(broker, topology.requests) == []
    nowhere = BrokerConfig(bootstrap="127.0.0.1:1", client_id="t", request_timeout_s=0.3)
    with pytest.raises(Unavailable):
        async with Broker(nowhere):
            pass


async def test_a_lane_answers_once_while_a_second_owner_and_a_rogue_write_too(
    broker_config: BrokerConfig, topology: Topology
) -> None:
    async with Broker(broker_config) as broker, Broker(broker_config) as other:
        await broker.create_topics(topology.topics)
        for first in range(0, 600, 50):
            await broker.append(topology.requests, 0, unsent(*(b"%d" % each for each in range(first, first + 50))))
        requests = await every(broker, topology.requests)
        lanes = [lane(each, topology, 0, lambda: True) for each in (broker, other)]

        async def own(mine: int) -> None:
            await lanes[mine].recover()
            for first in range(0, 600, 30):
                await lanes[mine].advance(requests[: first + 30])
                await asyncio.sleep(0.005)

        async def replay() -> None:
            while True:
                stored = await every(broker, topology.decisions)
                if stored:
                    old = stored[len(stored) // 2]
                    assert old.value is not None
                    await other.append(
                        topology.decisions, 0, [Unsent(key=old.key, value=old.value, headers=old.headers)]
                    )
                await asyncio.sleep(0.02)

        rogue = asyncio.create_task(replay())
        await asyncio.gather(own(0), own(1))
        rogue.cancel()
        await asyncio.gather(rogue, return_exceptions=True)
        report = await check_one_to_one(broker, verifier(topology, 0), source_topic=topology.requests)
        assert report.sound
        assert report.answered == 600
        assert report.void > 0
        assert lanes[0].redone + lanes[1].redone > 0
        fresh = lane(broker, topology, 0, lambda: True)
        assert await fresh.recover() == 600
