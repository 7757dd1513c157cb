"""The client's `Wire` in memory: logs as lists, shared by any number of clients, with faults on demand."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.records import Record, Unsent


class Fault(Enum):
    """What befalls an append."""

    NONE = "acknowledged"
    UNACKNOWLEDGED = "lands, and the acknowledgement is lost"
    LOST = "does not land, which nobody is told"
    DOUBLED = "lands twice, and the second is acknowledged"


@dataclass
class MemoryBroker:
    """Every log. `on_append` sees each record of any topic; `faults` befall the appends of clients in order."""

    partitions: int = 2
    logs: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    on_append: Callable[[Record], None] = lambda record: None
    down: bool = False
    cut: bool = False
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, topic: str, partition: int, record: Unsent) -> int:
        log = self.logs.setdefault((topic, partition), [])
        landed = Record(
            topic=topic, partition=partition, offset=len(log), timestamp_ms=time.time_ns() // 1_000_000,
            key=record.key, value=record.value, headers=record.headers,
        )  # fmt: skip
        log.append(landed)
        self._wake()
        self.on_append(landed)
        return landed.offset

    def restart(self, *, down: bool) -> None:
        self.down = down
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self) -> None:
        await self._moved.wait()


class MemoryWire:
    """One client's connection."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.positions: dict[tuple[str, int], int] = {}
        self.histories = 0

    async def open(self, *, requests: str, replies: Sequence[str]) -> int:
        for topic in replies:
            for partition in range(self.broker.partitions):
                self.positions[topic, partition] = len(self.broker.logs.get((topic, partition), []))
        return self.broker.partitions

    async def close(self) -> None:
        self.positions.clear()

    async def append(self, topic: str, partition: int, record: Unsent) -> int:
        await asyncio.sleep(0)
        if self.broker.down:
            raise Unavailable("the broker is down")
        fault = self.broker.faults.popleft() if self.broker.faults else Fault.NONE
        if fault is Fault.LOST:
            raise Unavailable("lost")
        offset = self.broker.put(topic, partition, record)
        if fault is Fault.DOUBLED:
            offset = self.broker.put(topic, partition, record)
        await asyncio.sleep(0)
        if fault is Fault.UNACKNOWLEDGED:
            raise Unavailable("the acknowledgement was lost")
        return offset

    async def follow(self) -> list[Record]:
        while True:
            if self.broker.cut:
                raise ContinuityError("the log was cut")
            found: list[Record] = []
            if not self.broker.down:
                for place, position in self.positions.items():
                    found += self.broker.logs.get(place, [])[position:]
                    self.positions[place] = max(position, len(self.broker.logs.get(place, [])))
            if found:
                return found
            await self.broker.moved()

    async def history(
        self, topics: Sequence[str], partitions: Iterable[int], since_ms: int | None
    ) -> AsyncIterator[list[Record]]:
        self.histories += 1
        wanted = set(partitions)
        ends = {place: end for place, end in self.positions.items() if place[0] in topics and place[1] in wanted}
        if self.broker.down:
            raise Unavailable("the broker is down")
        for place, end in ends.items():
            for record in self.broker.logs.get(place, [])[:end]:
                await asyncio.sleep(0)
                if since_ms is None or record.timestamp_ms >= since_ms:
                    yield [record]
