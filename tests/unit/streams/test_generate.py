"""The runner's lane over an in-memory broker: one generation a decision, none without an effective allow."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from memory_log import MemoryLog
from runner_lane import CountingModel, covered, generations, lane, put_decisions, run_until, until
from stages import KEYS, TOPICS, decision, place, signer, verifier

from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.seal import Verifier
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import Outcome
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.generate import GenerationLane, Ran


async def test_each_decision_gets_one_generation_and_only_allows_are_run() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, False, True, False, False, True])
    await run_until(log, model, 6)
    assert covered(log) == list(range(6))
    assert model.calls == ["d1-0-0", "d1-0-2", "d1-0-5"]
    by_source = {each.source.offset: each for each in generations(log)}
    assert by_source[0].outcome is Outcome.ANSWERED
    assert by_source[0].text == "Call Mara at 020 7946 0958."
    assert (by_source[1].outcome, by_source[1].code, by_source[1].text) == (Outcome.DENIED, Code.DENIED, None)


async def test_forged_grants_are_refused_in_one_record_and_never_run() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True])
    genuine = log.partitions[(TOPICS["enforcer"], 0)][0]
    copied = Unsent(key=genuine.key, value=genuine.value or b"", headers=genuine.headers)
    bare = Unsent(key=b"k", value=genuine.value or b"")
    log.put(TOPICS["enforcer"], 0, [copied, bare, copied])
    put_decisions(log, [True])
    await run_until(log, model, 5)
    assert covered(log) == [0, 1, 2, 3, 4]
    refused = [each for each in generations(log) if each.outcome is Outcome.REFUSED]
    assert [(each.code, each.source.offset, each.source.count) for each in refused] == [(Code.FORGED, 1, 3)]
    assert model.calls == ["d1-0-0", "d1-0-4"]  # the genuine ones on both sides were answered


async def test_what_finishes_first_is_appended_first_within_the_window() -> None:
    log, model = MemoryLog(), CountingModel()
    model.slow = {"d1-0-0"}
    put_decisions(log, [True, False, False, False, False, False])
    each = lane(log, model, window_size=3)
    await each.recover()
    advancing = asyncio.create_task(each.advance(log.partitions[(TOPICS["enforcer"], 0)]))
    async with asyncio.timeout(10):
        await until(lambda: covered(log) == [1, 2])
    for _ in range(50):
        await asyncio.sleep(0)
    assert covered(log) == [1, 2]  # source 3 stands outside [0, 3) until source 0 has its output
    assert not advancing.done()
    model.release.set()
    async with asyncio.timeout(10):
        await advancing
        await until(lambda: len(covered(log)) == 6)
    await each.close()
    assert covered(log) == list(range(6))


async def test_as_many_grants_run_side_by_side_as_the_window_admits() -> None:
    log, model = MemoryLog(), CountingModel()
    model.slow = {f"d1-0-{source}" for source in range(6)}
    put_decisions(log, [True] * 6)
    each = lane(log, model, window_size=4)
    await each.recover()
    advancing = asyncio.create_task(each.advance(log.partitions[(TOPICS["enforcer"], 0)]))
    async with asyncio.timeout(10):
        await until(lambda: len(model.calls) == 4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert model.calls == [f"d1-0-{source}" for source in range(4)]
    model.release.set()
    async with asyncio.timeout(10):
        await advancing
        await until(lambda: len(covered(log)) == 6)
    await each.close()
    assert len(model.calls) == 6


async def test_a_restart_runs_nothing_twice_that_is_in_the_log() -> None:
    log, model = MemoryLog(), CountingModel()
    model.slow = {"d1-0-1"}
    put_decisions(log, [True, True, False, True])
    first = lane(log, model)
    await first.recover()
    async with asyncio.timeout(10):
        await first.advance(log.partitions[(TOPICS["enforcer"], 0)])
        await until(lambda: covered(log) == [0, 2, 3])
    closing = asyncio.create_task(first.close())
    await asyncio.sleep(0)
    model.release.set()
    await closing
    model.slow = set()
    await run_until(log, model, 4)
    assert covered(log) == [0, 1, 2, 3]
    assert sorted(model.calls) == ["d1-0-0", "d1-0-1", "d1-0-1", "d1-0-3"]  # the interrupted one ran again, no other


@pytest.mark.parametrize("fault", ["unacknowledged", "lost", "intruder"])
async def test_a_failed_append_is_read_back_and_redone_once(fault: str) -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, False, True, True])
    match fault:
        case "unacknowledged":
            log.unacknowledged = 2
        case "lost":
            log.lost = 2
        case "intruder":
            log.intruders = [Unsent(key=None, value=b"junk"), Unsent(key=None, value=b"junk")]
    await run_until(log, model, 4)
    assert covered(log) == [0, 1, 2, 3]
    assert len(model.calls) == 3
    total = len(log.partitions[(TOPICS["runner"], 0)])
    assert total == {"unacknowledged": 4, "lost": 4, "intruder": total}[fault]
    assert fault != "intruder" or total > 4  # the positive control: void records do stand in the log


async def test_a_call_that_was_told_to_stop_is_made_again_when_the_lease_is_back() -> None:
    """A lapsed lease is no failure of the request: nothing is appended for it, and its answer comes later."""
    log, model, held = MemoryLog(), CountingModel(), True
    model.slow = {"d1-0-0"}
    put_decisions(log, [True])
    each = lane(log, model, held=lambda: held)
    await each.recover()
    await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
    async with asyncio.timeout(10):
        await until(lambda: bool(model.calls))
        held = False
        model.release.set()
        await asyncio.sleep(0.1)
        assert (generations(log), len(model.calls)) == ([], 1)
        held = True
        await until(lambda: covered(log) == [0])
    await each.close()
    assert [found.outcome for found in generations(log)] == [Outcome.ANSWERED]
    assert model.calls == ["d1-0-0"] * 2


async def test_a_run_that_grew_while_an_append_of_it_was_in_doubt_loses_no_source() -> None:
    class Doubtful(MemoryLog):
        """The first append lands, and its acknowledgement is lost when more of the run is there."""

        landed = asyncio.Event()
        more = asyncio.Event()

        async def append(self, topic: str, partition: int, records: Sequence[Unsent]) -> int:
            base = await super().append(topic, partition, records)
            if topic == TOPICS["runner"] and not self.landed.is_set():
                self.landed.set()
                await self.more.wait()
                raise Unavailable("the acknowledgement was lost")
            return base

        async def read(
            self, topic: str, partition: int, *, start: int, end: int | None = None
        ) -> AsyncIterator[list[Record]]:
            if topic == TOPICS["runner"] and self.more.is_set():
                await self.read_on.wait()
            async for batch in super().read(topic, partition, start=start, end=end):
                yield batch

        read_on = asyncio.Event()

    log, model = Doubtful(), CountingModel()
    log.put(TOPICS["enforcer"], 0, [Unsent(key=b"k", value=b"foreign")] * 8)
    records = log.partitions[(TOPICS["enforcer"], 0)]
    each = lane(log, model, window_size=16)
    await each.recover()
    async with asyncio.timeout(10):
        await each.advance(records[:2])
        await log.landed.wait()
        log.more.set()
        await asyncio.sleep(0.1)
        await each.advance(records[2:5])
        log.read_on.set()
        await each.advance(records[5:])
        await until(lambda: covered(log) == list(range(8)))
    await each.close()
    assert [(found.source.offset, found.source.count) for found in generations(log)][:1] == [(0, 2)]


async def test_past_its_deadline_no_model_call_starts() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True], deadline_ms=4_999)
    put_decisions(log, [True], deadline_ms=5_000)
    await run_until(log, model, 2)
    assert [(each.outcome, each.code) for each in generations(log)] == [
        (Outcome.EXPIRED, Code.EXPIRED),
        (Outcome.ANSWERED, Code.OK),
    ]
    assert model.calls == ["d1-0-1"]


async def test_what_is_stopped_is_not_started_and_what_runs_is_cut() -> None:
    """The first call is in progress when its stop comes; the second is stopped before; the third is not stopped."""
    log, model = MemoryLog(), CountingModel()
    stopped = {"d1-0-1"}
    model.slow = {"d1-0-0"}
    put_decisions(log, [True, True, True])
    each = lane(log, model, stopped=lambda decision: decision.decision_id in stopped)
    await each.recover()
    await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
    async with asyncio.timeout(10):
        await until(lambda: bool(model.calls))
        stopped.add("d1-0-0")
        model.release.set()
        await until(lambda: covered(log) == [0, 1, 2])
    await each.close()
    found = {made.source.offset: (made.outcome, made.code, made.text) for made in generations(log)}
    assert found[0] == found[1] == (Outcome.REFUSED, Code.STOPPED, None)
    assert found[2][:2] == (Outcome.ANSWERED, Code.OK)
    assert model.calls == ["d1-0-0", "d1-0-2"]


async def test_a_hole_in_the_decisions_gets_one_output() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True] * 9)
    each = lane(log, model, window_size=3)
    await each.recover()
    records = log.partitions[(TOPICS["enforcer"], 0)]
    async with asyncio.timeout(10):
        await each.advance([records[0], records[8]])
        await until(lambda: len(covered(log)) == 9)
    await each.close()
    assert covered(log) == list(range(9))
    assert {one.code for one in generations(log)} == {Code.OK, Code.GAP}


async def test_a_cut_decisions_log_is_refused() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, True])
    await run_until(log, model, 2)
    log.partitions[(TOPICS["enforcer"], 0)] = []
    with pytest.raises(ContinuityError, match="recreated or cut"):
        await lane(log, model).recover()


async def test_a_bug_in_the_model_stops_the_lane_loudly() -> None:
    class Broken(CountingModel):
        async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
            raise RuntimeError("a bug")

    log = MemoryLog()
    put_decisions(log, [True] * 6)
    each = lane(log, Broken(), window_size=2)
    await each.recover()
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(10):
            await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
    await each.close()
    assert generations(log) == []


def test_a_grant_is_made_by_verification_alone() -> None:
    made = decision(0)
    assert made.granted is not None
    with pytest.raises(TypeError, match="effective allow"):
        Grant(object(), made, made.granted, made.source)
    assert KEYS.keys() == {"enforcer", "runner", "redactor", "shadow"}
    assert place("runner").stage == "runner"


@pytest.mark.parametrize("asks", [True, False])
async def test_a_grant_under_a_key_that_is_not_heard_of_yet_waits_for_the_policy(asks: bool) -> None:
    """The control is a lane that does not ask: to that one, the grant of a new colleague is a forgery."""
    log, model, known = MemoryLog(), CountingModel(), {}
    put_decisions(log, [True])

    async def policy_current() -> None:
        known.update(KEYS if asks else {})

    each = GenerationLane(
        broker=log,
        model=model,
        decisions=Verifier(place("enforcer"), lambda: known),
        generations=verifier("runner"),
        signer=signer("runner"),
        window_size=4,
        slice_bytes_max=100_000,
        clock_ms=lambda: 5_000,
        may_append=lambda: True,
        policy_current=policy_current,
    )
    await each.recover()
    known.clear()
    async with asyncio.timeout(10):
        await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
        await until(lambda: covered(log) == [0])
    await each.close()
    assert [found.code for found in generations(log)] == [Code.OK if asks else Code.FORGED]
