"""Where nothing is forgotten, promises are made while somebody asks, and rarely else."""

from memory_log import MemoryLog

from sluicegate.schemas.records import Unsent
from sluicegate.streams.freshness_writer import IDLE_AFTER_S, IDLE_INTERVAL_S, INTERVAL_S, Demand

REQUESTS = "t.requests"
HOUR_S = 3_600.0


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def promised(demand: Demand, clock: Clock, seconds: float) -> int:
    """How many promises a writer makes in this time."""
    count = 0
    for _ in range(round(seconds / INTERVAL_S)):
        clock.now_s += INTERVAL_S
        count += await demand()
    return count


async def test_promises_are_rare_while_nobody_asks_and_steady_while_somebody_does() -> None:
    log, clock = MemoryLog(), Clock()
    demand = Demand(log, topic=REQUESTS, partitions=2, monotonic_s=clock)

    first_minute = await promised(demand, clock, IDLE_AFTER_S)
    quiet = await promised(demand, clock, HOUR_S)
    await log.append(REQUESTS, 1, [Unsent(key=None, value=b"asked")])
    asked = await demand()
    after = await promised(demand, clock, IDLE_AFTER_S - 1)

    assert first_minute >= IDLE_AFTER_S / INTERVAL_S - 2, "a start is taken for a request"
    assert 0.9 * HOUR_S / IDLE_INTERVAL_S <= quiet <= 1.1 * HOUR_S / IDLE_INTERVAL_S
    assert asked
    assert after == round((IDLE_AFTER_S - 1) / INTERVAL_S), "every look promises while somebody asks"


async def test_a_request_on_any_partition_counts() -> None:
    log, clock = MemoryLog(), Clock()
    demand = Demand(log, topic=REQUESTS, partitions=4, monotonic_s=clock)
    await promised(demand, clock, 2 * IDLE_AFTER_S)

    for partition in range(4):
        await promised(demand, clock, IDLE_AFTER_S)
        clock.now_s += INTERVAL_S
        while await demand():  # the one that was due anyway
            clock.now_s += INTERVAL_S
        await log.append(REQUESTS, partition, [Unsent(key=None, value=b"asked")])
        assert await demand(), partition
