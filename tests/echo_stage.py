"""The echoing gate on a real broker: reads the request topic, writes copies of releases, as long as it is entered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from echo_gate import Copy, EchoGate

from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology


class EchoStage:
    """`held` None delivers at once; a list keeps the copies for `deliver`."""

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self.gate = EchoGate(topology)
        self.held: list[Copy] | None = None
        self._broker = broker
        self._moved = asyncio.Event()

    async def follow(self, partition: int, start: int = 0) -> None:
        topology = self.gate.topology
        tail = self._broker.tail(topology.requests, partition, start=start)
        try:
            async for records in tail:
                await self._answer(records)
        finally:
            await tail.aclose()

    async def _answer(self, records: Sequence[Record]) -> None:
        copies = [self.gate.judge(record) for record in records]
        if self.held is not None:
            self.held += copies
        else:
            await self.deliver(copies)
        self._moved.set()

    async def deliver(self, copies: Sequence[Copy]) -> None:
        """Appends the copies, topic by topic; a broker that does not acknowledge is asked again."""
        for topic, partition in dict.fromkeys((topic, partition) for topic, partition, _ in copies):
            batch: list[Unsent] = [copy for *place, copy in copies if place == [topic, partition]]
            while True:
                with contextlib.suppress(Unavailable):
                    await self._broker.append(topic, partition, batch)
                    break

    async def release_held(self) -> None:
        held, self.held = self.held or [], None
        await self.deliver(held)

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.held or []) < count:
                self._moved.clear()
                await self._moved.wait()


@asynccontextmanager
async def echoing(config: BrokerConfig, topology: Topology, replies: Sequence[str]) -> AsyncIterator[EchoStage]:
    """Creates the topics and answers."""
    async with Broker(config) as broker:
        await broker.create_topics(topology.with_replies(replies))
        stage = EchoStage(broker, topology)
        tasks = [asyncio.create_task(stage.follow(each)) for each in range(topology.partitions)]
        try:
            yield stage
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
