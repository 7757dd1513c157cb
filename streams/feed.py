"""One partition's input, in order: an offset goes in, slices without a silent hole come out; the only place that
decides that an offset holds no record.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from sluicegate.enforcer.seal import SLICE_RECORDS_MAX
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record
from sluicegate.streams.fetch import BrokerConfig, Fetched, Fetcher

log = logging.getLogger(__name__)
HOLE_TRIES = 3
PAUSE_S = 0.1
# A broker that does not wait with an empty answer is asked 30 times a second; after a second of nothing, 7 times.
SHORT_WAIT_MS = 100
EMPTY_BEFORE_IDLE = 30
IDLE_PAUSE_S = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Records at ascending offsets that carry on at `first`; an offset missing from there on is a confirmed hole."""

    partition: int
    first: int
    records: tuple[Record, ...]


class Feed:
    """Reads on a connection of its own. `take` from one task."""

    def __init__(
        self, config: BrokerConfig, topic: str, partition: int, *, start: int, records_max: int = SLICE_RECORDS_MAX
    ) -> None:
        self._fetcher = Fetcher(config)
        self._topic = topic
        self._partition = partition
        self._records_max = records_max
        self._waiting: deque[Record] = deque()
        self._first = start  # the offset that the next slice carries on at
        self._sure = start  # every offset from `_first` up to here is a confirmed hole
        self._tries = 0
        self._empty = 0
        self._idle_pause_s = IDLE_PAUSE_S if config.fetch_wait_ms < SHORT_WAIT_MS else 0.0

    async def take(self) -> Slice:
        """The next slice, never empty; waits for ever. A hole is looked at three times before it counts as one.

        Raises:
            ContinuityError: the log was cut or recreated.
            ConfigurationError: the topic is missing or forbidden.
        """
        while True:
            if self._waiting and self._waiting[0].offset == self._sure:
                return self._cut()
            if self._waiting:
                await self._doubt(self._waiting[0].offset)
                continue
            if self._empty >= EMPTY_BEFORE_IDLE:
                await asyncio.sleep(self._idle_pause_s)
            found = await self._fetch()
            self._empty = 0 if found.records else self._empty + 1
            self._waiting.extend(found.records)
            if not found.records and found.next > self._sure:
                await self._doubt(found.next)

    async def _fetch(self) -> Fetched:
        while True:
            try:
                return await self._fetcher.fetch(self._topic, self._partition, offset=self._sure)
            except Unavailable as error:
                where = {"topic": self._topic, "partition": self._partition, "why": str(error)}
                log.warning("feed waits", extra=where)
                await asyncio.sleep(PAUSE_S)

    async def _doubt(self, end: int) -> None:
        """Takes the offsets from `_sure` to `end` for a hole at the third look; before that, looks again."""
        self._tries += 1
        if self._tries < HOLE_TRIES:
            self._waiting.clear()
            await asyncio.sleep(PAUSE_S)
            return
        where = {"topic": self._topic, "partition": self._partition, "offset": self._sure, "count": end - self._sure}
        log.error("the log holds no record", extra=where)
        self._tries = 0
        self._sure = end

    def _cut(self) -> Slice:
        first, self._tries = self._first, 0
        records: list[Record] = []
        while self._waiting and self._waiting[0].offset == self._sure and len(records) < self._records_max:
            records.append(self._waiting.popleft())
            self._sure += 1
        self._first = self._sure
        return Slice(partition=self._partition, first=first, records=tuple(records))

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._fetcher.close()
