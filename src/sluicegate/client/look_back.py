"""Reads replies back for those who look for one that came before: one reading at a time, for all who wait for it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sluicegate.client.waiting import Waiter
from sluicegate.client.wire import Wire
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record

log = logging.getLogger(__name__)
PAUSE_S: Final = 0.5
RECORDS_AT_ONCE: Final = 32


class Offer(Protocol):
    """What takes a record that was read; `before`: it was read back."""

    def __call__(self, record: Record, *, before: bool) -> None:
        """MUST NOT block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one waiter wants read. `since_ms` None: everything that is kept."""

    waiter: Waiter
    topics: frozenset[str]
    partitions: frozenset[int]
    since_ms: int | None


class LookBack:
    """`offer` gets every record that was read, `done` every waiter for whom all of it was."""

    def __init__(self, wire: Wire, topics: Sequence[str], offer: Offer, done: Callable[[Waiter], None]) -> None:
        self._wire = wire
        self._topics = tuple(topics)
        self._offer = offer
        self._done = done
        self._wants: list[Want] = []
        self._wanted = asyncio.Event()

    def want(self, waiter: Waiter, *, topics: Iterable[str], partitions: Iterable[int], since_ms: int | None) -> None:
        """Asks for a reading that begins after this call."""
        waiter.looking_back = True
        self._wants.append(
            Want(waiter=waiter, topics=frozenset(topics), partitions=frozenset(partitions), since_ms=since_ms)
        )
        self._wanted.set()

    async def run(self) -> None:
        """Reads for ever what is wanted. A broker that does not answer is asked again."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            wants = [want for want in self._wants if not want.waiter.future.done()]
            self._wants.clear()
            if not wants:
                continue
            try:
                await self._read(wants)
            except Unavailable as error:
                log.warning("replies cannot be read back yet", extra={"why": str(error)})
                self._wants += wants
                self._wanted.set()
                await asyncio.sleep(PAUSE_S)
                continue
            for want in wants:
                self._done(want.waiter)

    async def _read(self, wants: Sequence[Want]) -> None:
        named = frozenset().union(*(want.topics for want in wants))
        partitions = frozenset().union(*(want.partitions for want in wants))
        times = [want.since_ms for want in wants]
        since_ms = None if None in times else min(time for time in times if time is not None)
        topics = [topic for topic in self._topics if topic in named]
        count = 0
        async for records in self._wire.history(topics, sorted(partitions), since_ms):
            for record in records:
                self._offer(record, before=True)
                count += 1
                if count % RECORDS_AT_ONCE == 0:
                    await asyncio.sleep(0)
