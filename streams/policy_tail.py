"""The policy log, followed whole: records in, the policy state at any T out; ready only once it has reached the
log's end.

What takes long to read is folded on a thread, into a fork of the state, while the state before goes on deciding what it
still can. What waits to be folded is known meanwhile, and from when on it may count: nothing is decided from there on.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sluicegate.enforcer.history import decode_policy_event
from sluicegate.enforcer.policy_kinds import Kind, kind_of
from sluicegate.enforcer.schedule import FOREVER_MS
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.state import Accepted, Event, NotReady, PolicyLog, Rejected, Rules
from sluicegate.enforcer.stops import NO_STOPS, Stops
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record
from sluicegate.streams.beside import beside
from sluicegate.streams.kafka import Broker, Tail

log = logging.getLogger(__name__)
PARTITION = 0
WAIT_MS = 150
POLL_S = 0.01
LONG: Final = frozenset({Kind.BUNDLE, Kind.DIRECTORY})  # what may take long to read
WAITING_MAX: Final = 256  # records received and not folded; at the limit nothing more is received


@dataclass(frozen=True, slots=True, kw_only=True)
class _Received:
    """A record that is not folded yet; no event where it is none. Before `from_ms` (T) it changes nothing."""

    offset: int
    event: Event | None
    stamp_ms: int
    from_ms: int

    def is_one_of(self, kinds: frozenset[Kind]) -> bool:
        """Whether it is an event of one of these kinds."""
        return self.event is not None and kind_of(self.event) in kinds


class PolicyTail:
    """Follows the one-partition policy topic into a `PolicyLog`. Readers take immutable snapshots; a bad event
    changes nothing. `kinds`: what is folded at all, for who needs no more; the rest is passed.
    """

    def __init__(
        self, broker: Broker, *, topic: str, state: PolicyLog, kinds: frozenset[Kind] = frozenset(Kind)
    ) -> None:
        self._broker = broker
        self._topic = topic
        self.state = state
        self._kinds = kinds
        self._tail: Tail | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._waiting: deque[_Received] = deque()
        self._arrived = asyncio.Event()
        self._receiving = False
        self._received = state.position
        self._ahead = NO_STOPS

    async def start(self, *, timeout_s: float) -> None:
        """Follows from the log's start and returns once the end seen at the start is folded.

        Raises:
            Unavailable: the end was not reached in time.
        """
        self._tail = self._broker.tail(
            self._topic, PARTITION, start=await self._broker.start_offset(self._topic, PARTITION)
        )
        self._tasks = (asyncio.create_task(self._receive(self._tail)), asyncio.create_task(self._fold_received()))
        try:
            async with asyncio.timeout(timeout_s):
                await self._tail.caught_up.wait()
                await self._folded(self._received)
        except TimeoutError:
            raise Unavailable(
                f"the policy log `{self._topic}` was not read to its end within {timeout_s:g} s"
            ) from None

    async def _receive(self, tail: Tail) -> None:
        async for batch in tail:
            self._receiving = True
            for record in batch:
                while len(self._waiting) >= WAITING_MAX:  # noqa: ASYNC110 - one poll for all waits
                    await asyncio.sleep(POLL_S)
                self.receive(record)
            self._receiving = False

    async def _fold_received(self) -> None:
        while True:
            await self._arrived.wait()
            while self._waiting:
                await self.fold_next()
            self._arrived.clear()

    def receive(self, record: Record) -> None:
        """Takes one record. It is folded at once where nothing waits before it and that does not take long; until it
        is, nothing is decided that it may change.
        """
        try:
            event = decode_policy_event(record)
        except CodecError:
            event = None
            log.warning("policy event unreadable", extra={"offset": record.offset})
        if event is not None and kind_of(event) not in self._kinds:
            event = None
        alone = not self._waiting
        from_ms = FOREVER_MS if event is None else self.state.earliest_ms(event, record.timestamp_ms, next_=alone)
        received = _Received(offset=record.offset, event=event, stamp_ms=record.timestamp_ms, from_ms=from_ms)
        self._received = record.offset
        if alone and not received.is_one_of(LONG):
            self._fold(received)
            return
        if event is not None and received.is_one_of(frozenset({Kind.STOP})):
            self._obey_ahead(received, event)
        self._waiting.append(received)
        self._arrived.set()

    def _obey_ahead(self, received: _Received, event: Event) -> None:
        """A stop does not wait for what is being read before it: runner and redactor obey it at once. It only takes
        away, and neither bundles nor directories say who may stop; behind what does say so, it waits.
        """
        if all(each.event is None or each.is_one_of(LONG | {Kind.STOP}) for each in self._waiting):
            fork = self.state.fork()
            fork.fold(received.offset, event, received.stamp_ms)
            self._ahead = Stops(standing=self._ahead.standing | fork.stops.standing)

    async def fold_next(self) -> None:
        """Folds the first of what waits; what takes long on a thread of its own, and all of it counts at once."""
        first = self._waiting[0]
        if first.event is None or not first.is_one_of(LONG):
            self._fold(first)
        else:
            from_ms = self.state.earliest_ms(first.event, first.stamp_ms, next_=True)
            self._waiting[0] = replace(first, from_ms=from_ms)
            fork = self.state.fork()
            found = await beside(fork.fold, first.offset, first.event, first.stamp_ms)
            self.state.adopt(fork)
            self._tell(first.offset, found)
        self._waiting.popleft()
        if not self._waiting:
            self._ahead = NO_STOPS

    def _fold(self, received: _Received) -> None:
        if received.event is None:
            self.state.skip(received.offset)
        else:
            self._tell(received.offset, self.state.fold(received.offset, received.event, received.stamp_ms))

    @staticmethod
    def _tell(offset: int, found: Accepted | Rejected) -> None:
        if isinstance(found, Rejected):
            log.warning("policy event rejected", extra={"offset": offset, "code": found.code, "reason": found.reason})

    @property
    def position(self) -> int:
        """The highest offset received, folded or not; -1 before the first. Ask `settled` whether it is enough."""
        return max(self._received, self.state.position)

    @property
    def waiting(self) -> int:
        """How many records are received and not folded."""
        return len(self._waiting)

    def settled(self, time_ms: int) -> bool:
        """Whether nothing that was received and is not folded yet can change what is in force at T. Wait else."""
        return not self._waiting or time_ms < min(each.from_ms for each in self._waiting)

    @property
    def followed(self) -> bool:
        """Whether new policy events are still being taken."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def rules_at(self, time_ms: int) -> Rules | NotReady:
        """The policy state in force at T; not ready when the tail has stopped, or what may be in force is not read."""
        if not self.followed:
            return NotReady(reason="the policy log is not being followed")
        if not self.settled(time_ms):
            return NotReady(reason="what is in force at the time of this request is still being read: ask again")
        return self.state.at(time_ms)

    async def reach_end(self, *, timeout_s: float) -> None:
        """Returns once everything is folded that stands in the log at the call.

        Raises:
            Unavailable: the broker does not answer, or the end was not reached in time.
        """
        await self._reach_end(timeout_s, folded=True)

    async def receive_end(self, *, timeout_s: float) -> None:
        """Returns once everything is received that stands in the log at the call; what is long may not be folded.

        Raises:
            Unavailable: as `reach_end`.
        """
        await self._reach_end(timeout_s, folded=False)

    async def _reach_end(self, timeout_s: float, *, folded: bool) -> None:
        end = await self._broker.end_offset(self._topic, PARTITION)
        try:
            async with asyncio.timeout(timeout_s):
                while self._tail is None or self._tail.position < end or self._receiving:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
                if folded:
                    await self._folded(self._received)
        except TimeoutError:
            raise Unavailable(f"`{self._topic}` was not followed to its end within {timeout_s:g} s") from None

    async def _folded(self, offset: int) -> None:
        while self._waiting and self._waiting[0].offset <= offset:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def replies_at(self, time_ms: int) -> Mapping[str, str] | None:
        """The reply topic of each service at T; None where no directory is in force yet."""
        found = self.state.directory_at(time_ms)
        # One that has expired still says so: it grants nothing, and answers granted before have to go somewhere.
        return found.value.credentials.replies if found else None

    def stopped(self, decision: DecisionMade) -> bool:
        """Whether what this decision grants must stop now: by a stop, or because stops would not be heard of."""
        if not self.followed or self.state.stops.hitting(decision) is not None:
            return True
        return self._ahead.hitting(decision) is not None

    def stage_keys(self, stage: str) -> Mapping[KeyId, StageKey]:
        """The admitted keys of a stage, now."""
        return self.state.stage_keys(stage)

    async def stop(self) -> None:
        """Stops following."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._tail is not None:
            await self._tail.aclose()
