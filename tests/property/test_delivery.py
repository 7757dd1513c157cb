"""Delivery killed again and again in the middle of its work loses no release, whatever others copied meanwhile."""

import asyncio
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_log import MemoryLog
from releases import BATCH, DESK, REFUSALS, RELEASES, copied, delivered, lane, put_releases

from sluicegate.schemas.records import Record
from sluicegate.streams.delivered import COPIES_NEEDED, PIECE_OFFSETS

FEW_FOR_OTHERS = ("batch", *("desk",) * 30, None, *("desk",) * 40)
MANY = 3 * COPIES_NEEDED
ACTORS = [FEW_FOR_OTHERS[n % len(FEW_FOR_OTHERS)] for n in range(MANY)]


@cache
def sealed_once() -> tuple[Record, ...]:
    return tuple(put_releases(MemoryLog(), ACTORS, slice_size=256))


@settings(max_examples=12, deadline=None)
@given(
    stops=st.lists(st.integers(0, MANY), min_size=1, max_size=3),
    behind=st.sets(st.sampled_from([DESK, BATCH, REFUSALS]), max_size=2),
    ahead=st.integers(0, 2 * PIECE_OFFSETS - 1),
)
def test_killed_anywhere_nothing_is_lost(stops: list[int], behind: set[str], ahead: int) -> None:
    """Invariant 3. The topics `behind` have none of the copies of the piece that was under way, the others have all.

    Somebody else has copied `ahead` genuine releases to the busiest topic meanwhile.
    """

    async def run() -> None:
        log = MemoryLog()
        records = log.partitions[RELEASES, 0] = list(sealed_once())
        desk = [each for each, actor in zip(records, ACTORS, strict=True) if actor == "desk"]
        for stop in sorted(stops):
            one = lane(log)
            start = await one.recover()
            await one.advance(records[start:stop])
            begun = {topic: len(log.partitions.get((topic, 0), [])) for topic in behind}
            await one.advance(records[one.frontier : one.frontier + PIECE_OFFSETS])
            for topic, length in begun.items():
                del log.partitions.setdefault((topic, 0), [])[length:]
            log.put(DESK, 0, [copied(each) for each in desk[len(desk) - ahead :]])
        one = lane(log)
        await one.advance(records[await one.recover() :])
        for topic, actor in ((DESK, "desk"), (BATCH, "batch"), (REFUSALS, None)):
            assert set(delivered(log, topic)) == {n for n in range(MANY) if ACTORS[n] == actor}

    asyncio.run(run())
