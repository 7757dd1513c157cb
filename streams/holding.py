"""The partitions of an assignment while they are held, each a lane and its input under one lease; both worker shells
drive lanes through this and nothing else.

The lease stops a worker that the group has given up: aiokafka goes on consuming and producing after its session has
expired. It keeps wasted work down; that nothing goes wrong without it is compare-and-append's doing.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from sluicegate.schemas.errors import Unavailable
from sluicegate.streams.feed import Feed, Slice
from sluicegate.streams.fetch import BrokerConfig
from sluicegate.streams.generate import LaneClosed
from sluicegate.streams.ports import PartitionLane

log = logging.getLogger(__name__)
MakeLane = Callable[[int, Callable[[], bool]], PartitionLane]
"""Makes the lane of a partition; the second argument says whether the partition is still held."""
LEASE_SHARE: Final = 0.75
CLOSE_SHARE: Final = 0.5
PAUSE_S: Final = 0.2


class Lease:
    """Held while the last acknowledged heartbeat was sent less than 0.75 session timeouts ago."""

    def __init__(self, *, session_timeout_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._length_s = LEASE_SHARE * session_timeout_s
        self._now_s = now_s
        self._renewed_s: float | None = None

    @property
    def held(self) -> bool:
        """Whether the group can still count this worker in."""
        return self._renewed_s is not None and self._now_s() - self._renewed_s < self._length_s

    def renew(self, sent_s: float) -> None:
        """A heartbeat, or a join, that was sent at `sent_s` was acknowledged."""
        self._renewed_s = sent_s if self._renewed_s is None else max(self._renewed_s, sent_s)

    def watch(self, coordinator: Any) -> None:
        """Renews with every heartbeat that aiokafka's group coordinator gets acknowledged; it has no hook for that."""
        beat = coordinator._do_heartbeat

        async def noted() -> bool:
            sent_s = self._now_s()
            acknowledged = bool(await beat())
            if acknowledged:
                self.renew(sent_s)
            return acknowledged

        coordinator._do_heartbeat = noted


class Holding:
    """One partition: `open`, then `take` what `next` gives, in any tasks; `close` at revocation. Never opened again."""

    def __init__(self, config: BrokerConfig, *, topic: str, partition: int, make_lane: MakeLane, lease: Lease) -> None:
        self._config = config
        self._topic = topic
        self.partition = partition
        self._lease = lease
        self._revoked = False
        self._feed: Feed | None = None
        self._turn = asyncio.Condition()
        self.lane = make_lane(partition, self.may_append)

    def may_append(self) -> bool:
        """Whether this assignment of the partition is still ours."""
        return not self._revoked and self._lease.held

    async def open(self) -> None:
        """Reads back until the lane knows its frontier; a broker that does not answer is asked again.

        Raises:
            ContinuityError, ConfigurationError: as `PartitionLane.recover`.
        """
        self._feed = Feed(self._config, self._topic, self.partition, start=await self._recovered())

    async def _recovered(self) -> int:
        while True:
            try:
                return await self.lane.recover()
            except Unavailable as error:
                log.warning("read-back waits", extra=self._where(error))
                await asyncio.sleep(PAUSE_S)

    async def next(self) -> Slice:
        """The next slice of the input; from one task at a time.

        Raises:
            ContinuityError, ConfigurationError: as `Feed.take`.
        """
        if self._feed is None:
            raise RuntimeError("a holding is opened before it is read")
        return await self._feed.take()

    async def take(self, piece: Slice) -> None:
        """Has the lane answer a slice, after every slice before it; retried in place until it is answered or revoked.

        Raises:
            ContinuityError, ConfigurationError: the lane cannot go on.
            Exception: a bug in the lane; nothing of the slice was acknowledged.
        """
        async with self._turn:
            # A slice ahead of its turn would look like a hole to the lane.
            await self._turn.wait_for(lambda: self._revoked or self.lane.frontier >= piece.first)
        while not self._revoked:
            try:
                await self.lane.advance(piece.records)
                break
            except LaneClosed:
                if not self._revoked:
                    raise
            except Unavailable as error:
                log.warning("slice waits", extra=self._where(error))
                await asyncio.sleep(PAUSE_S)
        async with self._turn:
            self._turn.notify_all()

    def revoke(self) -> None:
        """From now on nothing more is appended."""
        self._revoked = True

    async def close(self, *, wait_s: float) -> None:
        """Revokes, waits at most `wait_s` for the slice in flight, and closes the input. A late append is void."""
        self.revoke()
        async with self._turn:
            self._turn.notify_all()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.lane.close(), wait_s)
        if self._feed is not None:
            await self._feed.aclose()

    @property
    def revoked(self) -> bool:
        """Whether the partition was given up."""
        return self._revoked

    def _where(self, error: Exception) -> dict[str, object]:
        return {"topic": self._topic, "partition": self.partition, "why": str(error)}


class Holdings:
    """What the group assigned last, each partition served by a task of its own, which hands slices to `deliver`."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        topic: str,
        session_timeout_s: float,
        make_lane: MakeLane,
        ready: Callable[[], None],
        deliver: Callable[[Holding, Slice], Awaitable[None]],
    ) -> None:
        self._config = config
        self._topic = topic
        self._close_s = CLOSE_SHARE * session_timeout_s
        self._make_lane = make_lane
        self._ready = ready
        self._deliver = deliver
        self._serving: dict[Holding, asyncio.Task[None]] = {}
        self._opening: set[int] = set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._changing = asyncio.Lock()
        self.lease = Lease(session_timeout_s=session_timeout_s)

    async def assign(self, partitions: Iterable[int]) -> None:
        """Gives up what was held and starts serving `partitions`; returns before they are read back."""
        async with self._changing:
            await self._release()
            self._opening = set(partitions)
            log.info("assigned", extra={"topic": self._topic, "partitions": sorted(self._opening)})
            for partition in sorted(self._opening):
                holding = Holding(
                    self._config,
                    topic=self._topic,
                    partition=partition,
                    make_lane=self._make_lane,
                    lease=self.lease,
                )
                task = asyncio.create_task(self._serve(holding))
                task.add_done_callback(self._ended)
                self._serving[holding] = task
            if not self._serving:
                self._ready()

    async def _serve(self, holding: Holding) -> None:
        await holding.open()
        self._opening.discard(holding.partition)
        if not self._opening:
            self._ready()
        while True:
            await self._deliver(holding, await holding.next())

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on: `over` tells, `raise_failure` raises the first error. Nothing more is appended."""
        if self._failure is None:
            self._failure = error
        for holding in self._serving:
            holding.revoke()
        self._failed.set()

    async def over(self, stopping: asyncio.Event, *, wait_s: float) -> bool:
        """Waits at most `wait_s` for a failure or for `stopping`; whether there is one."""
        waits = [asyncio.create_task(event.wait()) for event in (self._failed, stopping)]
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return self._failed.is_set() or stopping.is_set()

    def raise_failure(self) -> None:
        """Raises what a lane, a feed or the shell failed with, if anything."""
        if self._failure is not None:
            raise self._failure

    async def release(self) -> None:
        """Gives up every partition; returns once nothing is appended any more, or the wait for it is over."""
        for holding in self._serving:
            holding.revoke()
        async with self._changing:
            await self._release()

    async def _release(self) -> None:
        serving, self._serving = self._serving, {}
        for holding in serving:
            holding.revoke()
        await asyncio.gather(*(holding.close(wait_s=self._close_s) for holding in serving))
        for task in serving.values():
            task.cancel()
        await asyncio.gather(*serving.values(), return_exceptions=True)
