"""Delivery against a log in memory: each effective release reaches its one topic, whatever else stands anywhere."""

import asyncio
from dataclasses import replace

import pytest
import releases
from memory_log import MemoryLog
from releases import BATCH, DESK, REFUSALS, RELEASES, copied, delivered, lane, put_releases, release, slice_of
from stages import KEYS, place

from sluicegate.enforcer.seal import SLICE_RECORDS_MAX, Effective, Verifier, verify_copy
from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.deliver import DeliveryLane, Routes
from sluicegate.streams.delivered import COPIES_NEEDED

PATTERN = ("desk", "batch", None, "desk")


async def recovered(one: DeliveryLane) -> int:
    """Asked again until it knows, as a worker does."""
    while True:
        try:
            return await one.recover()
        except Unavailable:
            await asyncio.sleep(0.01)


async def deliver_all(log: MemoryLog) -> DeliveryLane:
    """What a worker does: recover, read from there, advance."""
    one = lane(log)
    start = await recovered(one)
    records = log.partitions.get((RELEASES, 0), [])[start:]
    for first in range(0, len(records), SLICE_RECORDS_MAX):
        await one.advance(records[first : first + SLICE_RECORDS_MAX])
    return one


def is_complete(log: MemoryLog, count: int, *, repeats_max: int = 0) -> None:
    """Every release 0 to `count` stands in its own topic and in no other, in order of first appearance."""
    found = {topic: delivered(log, topic) for topic in (DESK, BATCH, REFUSALS)}
    for topic, actor in ((DESK, "desk"), (BATCH, "batch"), (REFUSALS, None)):
        wanted = [offset for offset in range(count) if PATTERN[offset % 4] == actor]
        assert list(dict.fromkeys(found[topic])) == wanted
    assert sum(len(each) for each in found.values()) - count <= repeats_max


async def test_each_release_goes_where_its_application_reads_byte_for_byte() -> None:
    log = MemoryLog()
    records = put_releases(log, PATTERN * 10)
    one = await deliver_all(log)
    assert (one.frontier, one.skipped) == (40, 0)
    is_complete(log, 40)
    copies = {each.value: each for topic in (DESK, BATCH, REFUSALS) for each in log.partitions[topic, 0]}
    for record in records:
        assert (copies[record.value].key, copies[record.value].headers) == (record.key, record.headers)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 13, 39, 40])
async def test_a_restart_goes_on_where_the_copies_end(cut: int) -> None:
    log = MemoryLog()
    records = put_releases(log, PATTERN * 10)
    one = lane(log)
    await one.recover()
    await one.advance(records[:cut])
    await deliver_all(log)
    is_complete(log, 40)


@pytest.mark.parametrize("fault", ["lost", "unacknowledged"])
async def test_an_append_that_is_not_acknowledged_is_made_again(fault: str) -> None:
    log = MemoryLog()
    put_releases(log, PATTERN * 10)
    setattr(log, fault, 2)
    await deliver_all(log)
    is_complete(log, 40, repeats_max=0 if fault == "lost" else 30)


async def test_foreign_releases_are_not_delivered() -> None:
    """Invariant 2: unsealed, altered, moved and replayed records in `releases`; genuine ones arrive all the same."""
    log = MemoryLog()
    records = list(put_releases(log, PATTERN * 2))
    genuine = records[0]
    flood = [
        Unsent(key=genuine.key, value=genuine.value or b""),
        Unsent(key=genuine.key, value=(genuine.value or b"") + b"\x00", headers=genuine.headers),
        copied(genuine),
        *slice_of([release(500 + n) for n in range(3)], at=900),
    ]
    log.put(RELEASES, 0, flood * 100)
    at = len(log.partitions[RELEASES, 0])
    log.put(RELEASES, 0, slice_of([release(8)], at=at))
    one = await deliver_all(log)
    assert one.frontier == at + 1
    assert delivered(log, DESK) == [0, 3, 4, 7, 8], "the last is the positive control"


@pytest.mark.parametrize("what", ["forged", "replayed", "ahead", "rubbish"])
@pytest.mark.parametrize("topic", [DESK, BATCH, REFUSALS])
async def test_foreign_copies_neither_stall_nor_advance_delivery(what: str, topic: str) -> None:
    """Half of the releases are delivered; then somebody writes to a reply topic, and delivery starts again."""
    log = MemoryLog()
    records = put_releases(log, PATTERN * 100)
    one = lane(log)
    await one.recover()
    await one.advance(records[:200])
    flood = {
        "forged": releases.forged_copies(200, at=100_000),
        "replayed": [copied(each) for each in records[:8]] * 30,
        # Whoever reads `releases` can copy what delivery has not come to yet.
        "ahead": [copied(each) for each in records[350:400]],
        "rubbish": [Unsent(key=None, value=b"x"), Unsent(key=b"k", value=b"y", headers=(("sg-seal", b"z"),))] * 200,
    }[what]
    log.put(topic, 0, flood)
    stands = len(log.partitions[topic, 0])
    again = await deliver_all(log)
    assert again.frontier == 400
    seen = {each: set(delivered_genuine(log, each)) for each in (DESK, BATCH, REFUSALS)}
    for each, actor in ((DESK, "desk"), (BATCH, "batch"), (REFUSALS, None)):
        assert {offset for offset in range(400) if PATTERN[offset % 4] == actor} <= seen[each]
    assert len(log.partitions[topic, 0]) - stands <= 200, "what was delivered is not delivered again"


def delivered_genuine(log: MemoryLog, topic: str) -> list[int]:
    """The offsets of copies that verify: what an application sees."""
    verifier = Verifier(place("redactor"), lambda: KEYS)
    verdicts = [verify_copy(verifier, each) for each in log.partitions[topic, 0]]
    return [each.record.offset for each in verdicts if isinstance(each, Effective)]


async def test_many_copies_are_not_read_back_and_few_are_repeated() -> None:
    log = MemoryLog()
    count = 4 * COPIES_NEEDED
    put_releases(log, ["desk"] * count, slice_size=256)
    await deliver_all(log)
    reads = 0
    read = log.read

    def counted(topic: str, partition: int, *, start: int, end: int | None = None):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += (end or len(log.partitions[topic, partition])) - start
        return read(topic, partition, start=start, end=end)

    log.read = counted  # type: ignore[method-assign]
    one = await deliver_all(log)
    assert reads <= 2 * COPIES_NEEDED
    assert one.frontier == count
    assert len(log.partitions[DESK, 0]) == count, "what stands there is not copied again"


async def test_an_application_without_a_topic_is_told_of_in_the_log_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    log.missing = {BATCH}
    put_releases(log, ["desk", "nobody", "batch", "desk"] * 3)
    one = await deliver_all(log)
    assert delivered(log, DESK) == [0, 3, 4, 7, 8, 11]
    assert (one.skipped, one.frontier) == (6, 12)
    told = [record for record in caplog.records if record.message == "release not delivered"]
    assert {getattr(record, "to", None) for record in told} == {'Service::"nobody"', BATCH}
    assert len(told) == 2, "once for each"


async def test_a_broker_that_does_not_list_its_topics_yet_is_waited_for() -> None:
    """After a restart it may know none of them: nothing is skipped for that."""
    log = MemoryLog()
    records = put_releases(log, PATTERN * 4)
    one = lane(log)
    await one.recover()
    await one.advance(records[:4])
    log.missing = {DESK, BATCH, REFUSALS}
    log.lost = 1
    advancing = asyncio.create_task(one.advance(records))
    await asyncio.sleep(releases.SETTLING_S / 2)
    log.missing = set()
    await advancing
    is_complete(log, 16)
    assert one.skipped == 0


async def test_a_reply_topic_that_goes_away_does_not_stall_the_others() -> None:
    log = MemoryLog()
    records = put_releases(log, PATTERN * 4)
    one = lane(log)
    await one.recover()
    await one.advance(records[:4])
    log.missing = {BATCH}
    log.lost = 1  # the append that finds out
    await one.advance(records)
    assert delivered(log, DESK) == [0, 3, 4, 7, 8, 11, 12, 15]
    assert one.frontier == 16


async def test_the_directory_of_now_says_who_reads() -> None:
    """A topic that was given to another application gets nothing that was meant for the first."""
    log = MemoryLog()
    put_releases(log, ["desk", "batch"] * 4)
    one = lane(log, replies={"batch": "desk"})
    await one.recover()
    await one.advance(log.partitions[RELEASES, 0])
    assert delivered(log, DESK) == [1, 3, 5, 7]


async def test_without_a_directory_it_waits() -> None:
    log = MemoryLog()
    put_releases(log, ["desk"])
    one = DeliveryLane(
        broker=log,
        verifier=Verifier(place("redactor"), lambda: KEYS),
        routes=Routes(releases.TOPOLOGY, lambda: None),
        bytes_max=1_000,
        may_append=lambda: True,
        policy_current=lambda: asyncio.sleep(0),
    )
    with pytest.raises(Unavailable, match="no directory"):
        await one.recover()


async def test_a_key_that_was_just_admitted_is_waited_for() -> None:
    log = MemoryLog()
    records = put_releases(log, ["desk"] * 4)
    log.known = {DESK, BATCH, REFUSALS}
    known: dict[object, object] = {}
    asked = 0

    async def current() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:  # not at the start, but when the first release comes
            known.update(KEYS)

    one = DeliveryLane(
        broker=log,
        verifier=Verifier(place("redactor"), lambda: known),  # type: ignore[arg-type,return-value]
        routes=Routes(releases.TOPOLOGY, lambda: releases.REPLIES),
        bytes_max=20_000,
        may_append=lambda: True,
        policy_current=current,
    )
    await one.recover()
    await one.advance(records)
    assert delivered(log, DESK) == [0, 1, 2, 3]
    assert asked == 2


async def test_nothing_is_appended_once_closed_or_while_not_held() -> None:
    log = MemoryLog()
    records = put_releases(log, PATTERN)
    one = lane(log, held=False)
    await one.recover()
    task = asyncio.create_task(one.advance(records))
    await asyncio.sleep(0.02)
    await one.close()
    with pytest.raises(Unavailable):
        await task
    assert delivered(log, DESK) == []


async def test_a_recreated_log_of_releases_is_refused() -> None:
    log = MemoryLog()
    put_releases(log, PATTERN * 10)
    await deliver_all(log)
    del log.partitions[RELEASES, 0][4:]
    with pytest.raises(ContinuityError, match="copies of later releases"):
        await lane(log).recover()


async def test_a_broker_that_forbids_it_stops_the_stage() -> None:
    log = MemoryLog()
    records = put_releases(log, PATTERN)

    async def forbid(*_: object) -> int:
        raise ConfigurationError("forbidden")

    one = lane(log)
    await one.recover()
    log.append = forbid  # type: ignore[method-assign,assignment]
    with pytest.raises(ConfigurationError):
        await one.advance(records)


def test_copies_verify_on_their_partition_alone() -> None:
    verifier = Verifier(place("redactor"), lambda: KEYS)
    (original,) = releases.landed([release(7)], at=7)
    copy = replace(original, topic=DESK, offset=123)
    verdict = verify_copy(verifier, copy)
    assert isinstance(verdict, Effective)
    assert verdict.record == original

    def void(changed: Record) -> bool:
        return not isinstance(verify_copy(verifier, changed), Effective)

    assert void(replace(copy, partition=1))
    assert void(replace(copy, value=copy.value + b"\x00" if copy.value else None))
    assert void(replace(copy, key=b"other"))
    assert void(replace(copy, headers=()))
    assert void(replace(copy, headers=(("sg-seal", b"x"),)))
