"""How much of its own output a runner reads back, and what it knows where retention deleted some."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from memory_log import MemoryLog
from runner_lane import CountingModel, covered, lane, put_decisions, run_until, until
from stages import TOPICS, as_unsent, decision, sealed

from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.records import Record, Unsent


async def test_a_long_log_is_read_back_only_as_far_as_the_window_needs() -> None:
    class CountingLog(MemoryLog):
        def __init__(self) -> None:
            super().__init__()
            self.first_read: int | None = None

        async def read(
            self, topic: str, partition: int, *, start: int, end: int | None = None
        ) -> AsyncIterator[list[Record]]:
            if topic == TOPICS["runner"] and self.first_read is None:
                self.first_read = start
            async for batch in super().read(topic, partition, start=start, end=end):
                yield batch

    log, model = CountingLog(), CountingModel()
    put_decisions(log, [False, True] * 40)
    await run_until(log, model, 80)
    log.first_read = None
    put_decisions(log, [True])
    await run_until(log, model, 81)
    assert log.first_read == 80 - 4 * 4
    assert covered(log) == list(range(81))
    assert model.calls.count("d1-0-80") == 1
    assert len(model.calls) == 41


async def test_a_flood_of_foreign_outputs_makes_the_read_back_go_further() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True] * 12)
    await run_until(log, model, 12)
    log.put(TOPICS["runner"], 0, [Unsent(key=None, value=b"junk")] * 100)
    put_decisions(log, [True])
    await run_until(log, model, 13)
    assert covered(log) == list(range(13))
    assert len(model.calls) == 13


@pytest.mark.parametrize("kept", [0, 1, 3])
async def test_a_log_that_retention_cut_still_says_what_is_to_be_done(kept: int) -> None:
    """A quiet partition keeps fewer outputs than the window needs: nothing waits, or what waits came later."""
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True] * 9)
    await run_until(log, model, 9)
    log.starts = {TOPICS["enforcer"]: 9 - min(kept, 2), TOPICS["runner"]: 9 - kept}
    again = lane(log, model)
    assert await again.recover() == 9
    await again.close()
    if kept == 0:
        return
    at = 9
    late = sealed("enforcer", [as_unsent(decision(at))], at=at, source_first=at, source_last=at, time_ms=2_000)
    log.put(TOPICS["enforcer"], 0, late)
    after = lane(log, model)
    assert await after.recover() == 9
    async with asyncio.timeout(10):
        await after.advance(log.partitions[(TOPICS["enforcer"], 0)][9:])
        await until(lambda: len(model.calls) == 10)
    await after.close()
    assert model.calls[-1] == "d1-0-9"


async def test_what_a_deleted_output_may_have_answered_is_not_run() -> None:
    """Sources 1 to 3 were finished before source 0; their outputs are deleted, and that of 0 is kept."""
    log, model = MemoryLog(), CountingModel()
    model.slow = {"d1-0-0"}
    put_decisions(log, [True, False, False, False])
    each = lane(log, model)
    await each.recover()
    await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
    async with asyncio.timeout(10):
        await until(lambda: covered(log) == [1, 2, 3])
        model.release.set()
        await until(lambda: covered(log) == [0, 1, 2, 3])
    await each.close()
    log.starts = {TOPICS["runner"]: 3}
    with pytest.raises(ContinuityError, match="too few to know whether 1 is carried out"):
        await lane(log, model).recover()
    log.starts = {TOPICS["runner"]: 4}
    with pytest.raises(ContinuityError, match="too few to know whether 0 is carried out"):
        await lane(log, model).recover()
