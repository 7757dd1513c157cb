"""A policy log that is still being read decides nothing that what it reads may change: however long each event takes to
be folded, a T that is settled is answered as by a log that has folded all that was received.
"""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.enforcer import schedule
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Event, PolicyLog, Rules
from sluicegate.schemas import codec
from sluicegate.schemas.records import Record
from sluicegate.streams.policy_tail import PolicyTail
from tests.policy_events import NOW_MS, policy_log
from tests.property.test_policy_schedules import ATTACKS, START, Entry, log_of

SCHEDULES = 400
SLOW = {Kind.DIRECTORY: 2, Kind.BUNDLE: 1}  # bytes a millisecond: a short event is given as long as a long one
TIMES_MS = [0, NOW_MS - 1, *range(NOW_MS, NOW_MS + 6_000, 90)]


def tail_of() -> PolicyTail:
    return PolicyTail(None, topic="policy", state=policy_log())  # type: ignore[arg-type]


def record_of(offset: int, entry: Entry) -> Record:
    value = b"no event" if entry is BROKEN else codec.encode(entry.event)
    return Record(topic="policy", partition=0, offset=offset, timestamp_ms=entry.stamp_ms, key=None, value=value)


BROKEN = Entry(START[0], NOW_MS)


async def disagreements(seed: int, *, heeding: bool = True) -> list[str]:
    """Receives a log, folds it at random times, and asks at every step. Not `heeding`: as if all were settled."""
    chance = random.Random(seed)
    entries = log_of(seed, [chance.choice(ATTACKS) for _ in range(chance.randrange(5))])
    entries.insert(chance.randrange(len(entries)), BROKEN)
    tail, reference, found = tail_of(), policy_log(), []
    for offset, entry in enumerate(entries):
        tail.receive(record_of(offset, entry))
        if entry is BROKEN:
            reference.skip(offset)
        else:
            reference.fold(offset, entry.event, entry.stamp_ms)
        found += list(_differences(tail, reference, heeding=heeding))
        while tail.waiting and chance.random() < 0.4:
            await tail.fold_next()
            found += list(_differences(tail, reference, heeding=heeding))
    while tail.waiting:
        await tail.fold_next()
    assert tail.position == tail.state.position == reference.position == len(entries) - 1
    assert [tail.settled(time_ms) for time_ms in TIMES_MS] == [True] * len(TIMES_MS)
    assert [tail.state.at(time_ms) for time_ms in TIMES_MS] == [reference.at(time_ms) for time_ms in TIMES_MS]
    return found


def _differences(tail: PolicyTail, reference: PolicyLog, *, heeding: bool) -> Iterator[str]:
    for time_ms in TIMES_MS:
        if heeding and not tail.settled(time_ms):
            continue
        if tail.state.at(time_ms) != reference.at(time_ms):
            yield "an older version decides"


@pytest.fixture(autouse=True)
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "READ_PER_MS", SLOW)
    monkeypatch.setattr(schedule, "CONFORMED_PER_MS", 1 / 50)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=SCHEDULES, deadline=None)
async def test_what_is_being_read_is_waited_for_and_nothing_else_decides(seed: int) -> None:
    assert await disagreements(seed) == []


async def counted(seeds: range, *, heeding: bool = True) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        found.update(set(await disagreements(seed, heeding=heeding)))
    return found


async def test_decided_without_waiting_an_older_version_is_counted() -> None:
    assert (await counted(range(20), heeding=False))["an older version decides"] >= 15


@pytest.mark.parametrize(("late_ms", "behind_ms"), [(60, 0), (0, 300)], ids=["always late", "late behind others"])
async def test_a_planted_fault_is_counted(late_ms: int, behind_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    earliest = PolicyLog.earliest_ms

    def late(log: PolicyLog, event: Event, time_ms: int, *, next_: bool) -> int:
        return earliest(log, event, time_ms, next_=True) + late_ms + (0 if next_ else behind_ms)

    monkeypatch.setattr(PolicyLog, "earliest_ms", late)
    assert (await counted(range(40)))["an older version decides"] >= 3


async def test_most_times_are_settled_while_something_is_read() -> None:
    """The point of it: while a version is read, what is in force before it goes on deciding."""
    chance, waits, decided = random.Random(1), 0, 0
    for seed in range(20):
        tail = tail_of()
        for offset, entry in enumerate(log_of(seed, [])):
            tail.receive(record_of(offset, entry))
            if tail.waiting and offset >= len(START):
                waits += 1
                decided += isinstance(tail.state.at(entry.stamp_ms + 400), Rules) and tail.settled(entry.stamp_ms + 400)
            while tail.waiting and (offset < len(START) or chance.random() < 0.9):
                await tail.fold_next()
    assert waits >= 60
    assert decided >= 0.5 * waits
