"""Answered requests are counted in, CPU time and wall time from the end of the warm-up to the last one come out."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.ports import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`events` were answered in `cpu_s` of this process (all its threads) and `wall_s`, by `appends` appends."""

    events: int
    appends: int
    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        """Events per CPU-second."""
        return self.events / self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    answered: int
    appends: int
    cpu_s: float
    wall_s: float


class Tally:
    """`done` is set once `total` were answered."""

    def __init__(self, *, warm_up: int, total: int) -> None:
        self._warm_up = warm_up
        self._total = total
        self._answered = 0
        self._appends = 0
        self._first: _Mark | None = None
        self._last: _Mark | None = None
        self.done = asyncio.Event()

    def add(self, count: int) -> None:
        """One append with `count` answers was acknowledged."""
        self._answered += count
        self._appends += 1
        if self._first is None and self._answered >= self._warm_up:
            self._first = self._mark()
        if self._last is None and self._answered >= self._total:
            self._last = self._mark()
            self.done.set()

    def _mark(self) -> _Mark:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return _Mark(
            answered=self._answered,
            appends=self._appends,
            cpu_s=used.ru_utime + used.ru_stime,
            wall_s=time.monotonic(),
        )

    def measured(self) -> Measured:
        """What passed between the two marks.

        Raises:
            ValueError: they are not two: too few were answered, or one append answered all.
        """
        first, last = self._first, self._last
        if first is None or last is None or last.answered <= first.answered:
            raise ValueError("nothing was measured: ask for more events, or a shorter warm-up")
        return Measured(
            events=last.answered - first.answered,
            appends=last.appends - first.appends,
            cpu_s=last.cpu_s - first.cpu_s,
            wall_s=last.wall_s - first.wall_s,
        )


class Tallied:
    """A lane's log that counts what was acknowledged."""

    def __init__(self, log: Log, tally: Tally) -> None:
        self._log = log
        self._tally = tally

    async def append(self, topic: str, partition: int, records: Sequence[Unsent]) -> int:
        """As `Log.append`."""
        base = await self._log.append(topic, partition, records)
        self._tally.add(len(records))
        return base

    def read(self, topic: str, partition: int, *, start: int, end: int | None = None) -> AsyncIterator[list[Record]]:
        """As `Log.read`."""
        return self._log.read(topic, partition, start=start, end=end)

    async def start_offset(self, topic: str, partition: int) -> int:
        """As `Log.start_offset`."""
        return await self._log.start_offset(topic, partition)

    async def end_offset(self, topic: str, partition: int) -> int:
        """As `Log.end_offset`."""
        return await self._log.end_offset(topic, partition)
