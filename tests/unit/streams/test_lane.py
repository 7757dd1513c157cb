"""A lane against a log in memory that loses and interleaves: one effective output a record, and state to match."""

import asyncio
from collections.abc import Callable

import pytest
from counting import Counting, check_one_to_one
from memory_log import MemoryLog
from streams_worker import KEY, SIGNER

from sluicegate.enforcer.ports import FORGETS
from sluicegate.enforcer.seal import Place, StageKey, Verifier, seal_slice
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.lane import Lane
from sluicegate.streams.ports import always_covered

SOURCE = "t.requests"
PLACE = Place(env="test", tenant="t", epoch=1, topic="t.decisions", partition=0, event="decision", stage="enforcer")
VERIFIER = Verifier(PLACE, lambda: {KEY.key_id: KEY})


def ask(log: MemoryLog, count: int) -> list[Record]:
    log.put(SOURCE, 0, [Unsent(key=b"k", value=b"%d" % each) for each in range(count)])
    return log.partitions[SOURCE, 0]


def lane(
    log: MemoryLog,
    *,
    verifier: Verifier = VERIFIER,
    slice_bytes_max: int = 100_000,
    held: bool = True,
    may_decide: Callable[[int], bool] = always_covered,
) -> Lane:
    return Lane(
        broker=log,
        stage=Counting(),
        verifier=verifier,
        signer=SIGNER,
        source_topic=SOURCE,
        output=DecisionMade,
        slice_bytes_max=slice_bytes_max,
        slice_records_max=8,
        may_append=lambda: held,
        may_decide=may_decide,
    )


async def test_every_record_gets_one_output_and_what_is_answered_is_left_out() -> None:
    log = MemoryLog()
    records = ask(log, 30)
    one = lane(log)
    assert await one.recover() == 0
    await one.advance(records[:20])
    await one.advance(records[5:])
    await one.advance(records)
    assert one.frontier == 30
    assert len(log.partitions[PLACE.topic, 0]) == 30
    assert (await check_one_to_one(log, VERIFIER, source_topic=SOURCE)).sound


@pytest.mark.parametrize("fault", ["lost", "unacknowledged", "intruders"])
async def test_a_slice_that_did_not_land_for_certain_is_read_back_and_redone(fault: str) -> None:
    log = MemoryLog()
    records = ask(log, 20)
    one = lane(log)
    await one.recover()
    if fault == "intruders":
        log.intruders = [Unsent(key=None, value=b"intruder")]
    else:
        setattr(log, fault, 1)
    await one.advance(records)
    report = await check_one_to_one(log, VERIFIER, source_topic=SOURCE)
    assert report.sound
    assert report.void == {"lost": 0, "unacknowledged": 0, "intruders": 9}[fault]
    assert one.void_count == report.void


async def test_a_slice_waits_until_its_latest_event_time_may_be_decided() -> None:
    log = MemoryLog()
    log.put(SOURCE, 0, [Unsent(key=b"k", value=b"0")], timestamp_ms=900)
    log.put(SOURCE, 0, [Unsent(key=b"k", value=b"1")], timestamp_ms=700)
    covered_ms, asked = 900, set()

    def may_decide(time_ms: int) -> bool:
        asked.add(time_ms)
        return time_ms < covered_ms

    one = lane(log, may_decide=may_decide)
    await one.recover()
    waiting = asyncio.create_task(one.advance(log.partitions[SOURCE, 0]))
    await asyncio.sleep(0.05)
    assert asked == {900}, "the highest stamp of the slice, not the last"
    assert not log.partitions.get((PLACE.topic, 0))
    covered_ms = 901
    await asyncio.wait_for(waiting, 2)
    assert len(log.partitions[PLACE.topic, 0]) == 2
    # Given up while it waits: nothing is appended, and whoever gives it up does not wait.
    log.put(SOURCE, 0, [Unsent(key=b"k", value=b"2")], timestamp_ms=901)
    waiting = asyncio.create_task(one.advance(log.partitions[SOURCE, 0]))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(one.close(), 0.5)
    with pytest.raises(Unavailable, match="given up"):
        await asyncio.wait_for(waiting, 2)
    assert len(log.partitions[PLACE.topic, 0]) == 2


async def test_a_second_owner_makes_the_first_one_read_back() -> None:
    log = MemoryLog()
    records = ask(log, 24)
    one, two = lane(log), lane(log)
    await one.recover()
    await two.recover()
    await two.advance(records[:10])
    await one.advance(records[:16])
    await two.advance(records)
    report = await check_one_to_one(log, VERIFIER, source_topic=SOURCE)
    assert report.sound
    assert report.answered == 24
    assert one.redone == two.redone == 1


async def test_the_check_counts_what_is_doubled_missing_and_misnumbered() -> None:
    log = MemoryLog()
    records = ask(log, 3)
    stage = Counting()
    for chosen in (records[:2], records[1:2]):
        proposal = stage.decide(chosen, frontier=chosen[0].offset, time_ms=0, clock_ms=None)
        at = await log.end_offset(PLACE.topic, 0)
        log.put(
            PLACE.topic,
            0,
            seal_slice(
                proposal.outputs,
                place=PLACE,
                at=at,
                source_first=proposal.source_first,
                source_last=proposal.source_last,
                time_ms=0,
                policy_position=0,
                signer=SIGNER,
            ),
        )
    report = await check_one_to_one(log, VERIFIER, source_topic=SOURCE)
    assert (report.answered, report.missing, report.doubled, report.misnumbered) == (2, 1, 1, 1)
    with pytest.raises(ContinuityError, match="frontier is 2"):
        await lane(log).recover()


async def test_a_hole_gets_an_output_of_its_own() -> None:
    log = MemoryLog()
    records = ask(log, 10)
    one = lane(log)
    await one.recover()
    await one.advance([*records[:3], *records[6:]])
    decisions = [codec.decode(each.value, DecisionMade) for each in log.partitions[PLACE.topic, 0]]
    assert [(each.source.offset, each.source.count) for each in decisions if each.code is Code.GAP] == [(3, 3)]
    assert one.frontier == 10


async def test_a_slice_is_cut_by_bytes() -> None:
    log = MemoryLog()
    records = ask(log, 16)
    one = lane(log, slice_bytes_max=2_000)
    await one.recover()
    await one.advance(records)
    assert (await check_one_to_one(log, VERIFIER, source_topic=SOURCE)).sound
    too_small = lane(MemoryLog(), slice_bytes_max=100)
    await too_small.recover()
    with pytest.raises(ValueError, match="over the slice limit"):
        await too_small.advance(records)


@pytest.mark.parametrize("change", ["recreated", "cut", "rewritten", "restamped"])
async def test_an_input_that_is_not_the_one_answered_is_refused(change: str) -> None:
    log = MemoryLog()
    one = lane(log)
    await one.recover()
    await one.advance(ask(log, 10))
    assert await lane(log).recover() == 10
    source = log.partitions[SOURCE, 0]
    if change == "recreated":
        source.clear()
    elif change == "cut":
        source.pop()
    else:
        source.clear()
        log.put(SOURCE, 0, [Unsent(key=b"k", value=b"%d" % each) for each in range(9)])
        last = Unsent(key=b"k", value=b"9" if change == "restamped" else b"other")
        log.put(SOURCE, 0, [last], timestamp_ms=5)
    with pytest.raises(ContinuityError, match="epoch"):
        await lane(log).recover()


async def test_a_key_that_is_not_admitted_stops_the_lane_at_its_first_slice() -> None:
    log = MemoryLog()
    other = StageKey(key_id=KeyId("other"), stage=KEY.stage, public=KEY.public, not_before_ms=0, revoked_at_ms=None)
    one = lane(log, verifier=Verifier(PLACE, lambda: {other.key_id: other}))
    await one.recover()
    with pytest.raises(ConfigurationError, match="run `sluicegate keys new stage enforcer`"):
        await one.advance(ask(log, 3))


async def test_a_lane_that_is_closed_appends_nothing() -> None:
    log = MemoryLog()
    one = lane(log, held=False)
    await one.recover()
    await one.close()
    with pytest.raises(Unavailable, match="not held"):
        await one.advance(ask(log, 3))
    assert (PLACE.topic, 0) not in log.partitions


async def test_a_writer_that_is_always_faster_is_told_of_and_stops_nothing_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluicegate.streams.lane.VOIDS_MAX", 5)
    log = MemoryLog()
    records = ask(log, 6)
    one = lane(log)
    await one.recover()
    log.intruders = [Unsent(key=None, value=b"intruder")] * 7
    with pytest.raises(Unavailable, match="take the right"):
        await one.advance(records)
    await one.advance(records)
    assert (await check_one_to_one(log, VERIFIER, source_topic=SOURCE)).sound


async def test_a_partition_that_was_quiet_until_everything_was_deleted_goes_on() -> None:
    """The control is a request that came since: it may have been answered, so nobody guesses."""
    log = MemoryLog()
    one = forgetful(log)
    await one.recover()
    await one.advance(ask(log, 10))
    log.starts = {PLACE.topic: 10, SOURCE: 10}
    again = forgetful(log)
    assert await again.recover() == 10
    records = ask(log, 1)
    with pytest.raises(ContinuityError, match="no slice that it keeps is effective"):
        await forgetful(log).recover()
    await again.advance(records)
    assert again.frontier == 11
    assert await forgetful(log).recover() == 11


def forgetful(log: MemoryLog) -> Lane:
    """A lane whose stage needs nothing of what it wrote before."""

    class Forgetful(Counting):
        memory = FORGETS

    found = lane(log)
    found._stage = Forgetful()
    return found


@pytest.mark.parametrize("asks", [True, False])
async def test_a_slice_under_a_key_that_is_not_heard_of_yet_is_not_answered_again(asks: bool) -> None:
    """The control is a lane that does not ask: it takes its colleague's slice for a forgery, and would decide again."""
    log, known = MemoryLog(), {}
    colleague = lane(log)
    await colleague.recover()
    await colleague.advance(ask(log, 6))

    async def policy_current() -> None:
        known.update({KEY.key_id: KEY} if asks else {})

    late = lane(log, verifier=Verifier(PLACE, lambda: known))
    late._policy_current = policy_current
    assert await late.recover() == (6 if asks else 0)
