"""The shadow stage's lane: decisions in, what a candidate would have said of them out, with the requests read beside.

Order of effects: the policy log is folded to its end; where nothing stands then and later, the decisions are passed
over unread and nothing is written. Else the requests that a slice names are read; decide, seal, append, compare (in
`Lane`).

Nothing waits for this lane. So that little is read again after a restart, a run that was passed over is written down as
one record, each `PASSED_MAX` decisions or `PASSED_S` seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from sluicegate.enforcer.seal import Verifier
from sluicegate.enforcer.shadow_stage import ShadowStage
from sluicegate.schemas.records import Record
from sluicegate.streams.lane import Lane
from sluicegate.streams.ports import Log, PolicyCurrent
from sluicegate.streams.release import known_to

RECORDS_AT_ONCE: Final = 64
"""Decided without giving way to heartbeats; some 0.5 ms each."""
PASSED_MAX: Final = 10_000
PASSED_S: Final = 60.0


class RequestReader:
    """The requests of one partition that the decisions of one slice name."""

    def __init__(self, log: Log, topic: str, partition: int) -> None:
        self._log = log
        self._topic = topic
        self._partition = partition
        self._found: dict[int, Record] = {}

    def at(self, offset: int) -> Record | None:
        """The request at `offset`; None where the log keeps none, or it was not fetched."""
        return self._found.get(offset)

    async def fetch(self, offsets: Sequence[int]) -> None:
        """Makes `at` answer for these offsets, ascending, and for no others."""
        self._found = {}
        if not offsets:
            return
        wanted = set(offsets)
        start = max(offsets[0], await self._log.start_offset(self._topic, self._partition))
        if start > offsets[-1]:
            return
        async for batch in self._log.read(self._topic, self._partition, start=start, end=offsets[-1] + 1):
            self._found |= {record.offset: record for record in batch if record.offset in wanted}


class ShadowLane:
    """One partition of `decisions`. `over(T)`: whether no candidate stands at T or later, by what was folded so far;
    `policy_current` returns once all policy is folded that stands in its log. `now_s`: a clock that only runs forward.
    """

    def __init__(
        self,
        *,
        inner: Lane,
        stage: ShadowStage,
        log: Log,
        requests: RequestReader,
        decisions: Verifier,
        over: Callable[[int], bool],
        policy_current: PolicyCurrent,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._stage = stage
        self._log = log
        self._requests = requests
        self._decisions = decisions
        self._over = over
        self._policy_current = policy_current
        self._now_s = now_s
        self._next = 0
        self._written_s = now_s()

    @property
    def frontier(self) -> int:
        """The next decision offset to be looked at."""
        return max(self._next, self._inner.frontier)

    async def recover(self) -> int:
        """As the inner lane's; where nothing stands, what was decided meanwhile is passed over unread."""
        await self._inner.recover()
        # What stands in the log of decisions was decided by policy that was complete then. So of all that stands there
        # before the policy log is followed to its end, no candidate comes to be known later.
        place = self._decisions.place
        start = await self._log.start_offset(place.topic, place.partition)
        end = await self._log.end_offset(place.topic, place.partition)
        await self._policy_current()
        self._next = max(self._inner.frontier, end if self._over(self._inner.time_ms) else start)
        return self.frontier

    async def advance(self, records: Sequence[Record]) -> None:
        """Returns when every effective decision among them has its outcome, or none is to be.

        Raises:
            Unavailable, ContinuityError, ConfigurationError, ValueError: as `Lane.advance`.
        """
        for first in range(0, len(records), RECORDS_AT_ONCE):
            piece = [each for each in records[first : first + RECORDS_AT_ONCE] if each.offset >= self.frontier]
            if not piece:
                continue
            await self._policy_current()
            if not self._over(self._inner.time_ms) or self._is_time(piece[-1]):
                await known_to(self._decisions, piece, self._policy_current)
                await self._requests.fetch(self._stage.sources(piece))
                await self._inner.advance(piece)
                self._written_s = self._now_s()
            self._next = piece[-1].offset + 1

    def _is_time(self, last: Record) -> bool:
        """Whether it is time to write down what was passed over."""
        waiting = last.offset - self._inner.frontier
        return waiting >= PASSED_MAX or self._now_s() - self._written_s >= PASSED_S

    async def close(self) -> None:
        """As the inner lane's."""
        await self._inner.close()
