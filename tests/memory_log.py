"""The broker port in memory: partitions as lists, with faults on demand (`lose`, `misplace`)."""

from collections.abc import AsyncIterator, Mapping, Sequence

from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record, Unsent


class MemoryLog:
    """Acknowledges exact base offsets. `unacknowledged` appends land but raise; `intruders` land first."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], list[Record]] = {}
        self.unacknowledged = 0
        self.lost = 0
        self.intruders: list[Unsent] = []
        self.starts: dict[str, int] = {}
        self.known: set[str] = set()
        self.missing: set[str] = set()

    def put(self, topic: str, partition: int, records: Sequence[Unsent], timestamp_ms: int = 0) -> int:
        log = self.partitions.setdefault((topic, partition), [])
        base = len(log)
        for index, each in enumerate(records):
            log.append(
                Record(
                    topic=topic,
                    partition=partition,
                    offset=base + index,
                    timestamp_ms=timestamp_ms,
                    key=each.key,
                    value=each.value,
                    headers=each.headers,
                )
            )
        return base

    async def append(
        self, topic: str, partition: int, records: Sequence[Unsent], *, timestamp_ms: int | None = None
    ) -> int:
        del timestamp_ms  # as a broker that stamps appends itself
        if self.intruders:
            self.put(topic, partition, [self.intruders.pop()])
        if self.lost:
            self.lost -= 1
            raise Unavailable("the batch was lost")
        base = self.put(topic, partition, records)
        if self.unacknowledged:
            self.unacknowledged -= 1
            raise Unavailable("the acknowledgement was lost")
        return base

    async def read(
        self, topic: str, partition: int, *, start: int, end: int | None = None
    ) -> AsyncIterator[list[Record]]:
        assert start >= self.starts.get(topic, 0), "what was deleted is not read"
        records = self.partitions.get((topic, partition), [])[start:end]
        for first in range(0, len(records), 7):
            yield records[first : first + 7]

    async def topics(self) -> Mapping[str, int]:
        return {topic: 1 for topic in self.known if topic not in self.missing}

    async def start_offset(self, topic: str, partition: int) -> int:
        return self.starts.get(topic, 0)

    async def end_offset(self, topic: str, partition: int) -> int:
        return len(self.partitions.get((topic, partition), []))
