"""The lease ends before the group gives the worker up; slices are answered in turn, whatever order they arrive in."""

import asyncio
from collections.abc import Sequence

import pytest

from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record
from sluicegate.streams.feed import Slice
from sluicegate.streams.fetch import BrokerConfig
from sluicegate.streams.holding import Holding, Lease

CONFIG = BrokerConfig(bootstrap="127.0.0.1:1", client_id="t")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Coordinator:
    """Acknowledges or refuses heartbeats after `takes_s` on the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.acknowledges = True

    async def _do_heartbeat(self) -> bool:
        self.clock.now_s += 1.0
        return self.acknowledges


async def test_a_lease_counts_from_when_the_heartbeat_was_sent() -> None:
    clock = Clock()
    lease = Lease(session_timeout_s=4.0, now_s=clock)
    assert not lease.held
    coordinator = Coordinator(clock)
    lease.watch(coordinator)
    assert await coordinator._do_heartbeat()
    clock.now_s += 1.9
    assert lease.held
    clock.now_s += 0.2
    assert not lease.held


async def test_a_refused_heartbeat_renews_nothing() -> None:
    clock = Clock()
    lease = Lease(session_timeout_s=4.0, now_s=clock)
    coordinator = Coordinator(clock)
    coordinator.acknowledges = False
    lease.watch(coordinator)
    assert not await coordinator._do_heartbeat()
    assert not lease.held


class RecordingLane:
    def __init__(self) -> None:
        self.frontier = 0
        self.taken: list[int] = []
        self.unavailable = 0
        self.closed = False

    async def recover(self) -> int:
        return 0

    async def advance(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        if self.unavailable:
            self.unavailable -= 1
            raise Unavailable("not now")
        self.taken += [record.offset for record in records]
        self.frontier = records[-1].offset + 1

    async def close(self) -> None:
        self.closed = True


def piece(first: int, count: int) -> Slice:
    records = tuple(
        Record(topic="t", partition=0, offset=offset, timestamp_ms=0, key=None, value=b"")
        for offset in range(first, first + count)
    )
    return Slice(partition=0, first=first, records=records)


def holding(lane: RecordingLane) -> Holding:
    lease = Lease(session_timeout_s=60.0)
    lease.renew(float("inf"))
    return Holding(CONFIG, topic="t", partition=0, make_lane=lambda partition, may_append: lane, lease=lease)


async def test_slices_that_arrive_out_of_order_wait_for_their_turn() -> None:
    lane = RecordingLane()
    held = holding(lane)
    await asyncio.gather(*(held.take(piece(first, 5)) for first in (10, 0, 15, 5)))
    assert lane.taken == list(range(20))


async def test_a_broker_that_does_not_answer_is_asked_again_in_place() -> None:
    lane = RecordingLane()
    lane.unavailable = 2
    await holding(lane).take(piece(0, 3))
    assert lane.taken == [0, 1, 2]


async def test_a_bug_comes_out_and_nothing_is_skipped() -> None:
    lane = RecordingLane()

    async def broken(records: Sequence[Record]) -> None:
        raise KeyError("bug")

    lane.advance = broken  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        await holding(lane).take(piece(0, 3))
    assert lane.frontier == 0


async def test_revocation_frees_whoever_waits_and_ends_the_right_to_append() -> None:
    lane = RecordingLane()
    held = holding(lane)
    assert held.may_append()
    waiting = asyncio.create_task(held.take(piece(10, 1)))
    await asyncio.sleep(0)
    await held.close(wait_s=1.0)
    await asyncio.wait_for(waiting, 1.0)
    assert (lane.taken, lane.closed, held.may_append()) == ([], True, False)
