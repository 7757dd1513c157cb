"""The policy tail while a version is read on a thread: the loop goes on, T before its start is decided by the version
before, T from its start on by none; stops do not wait; a bug in reading stops everything.
"""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from stages import decision

from sluicegate.enforcer.pairs import Loaders
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.state import Event, NotReady, PolicyLog, Rules
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas import codec
from sluicegate.schemas.records import Record
from sluicegate.streams import beside as beside_module
from sluicegate.streams.beside import beside
from sluicegate.streams.policy_tail import PolicyTail
from tests.policy_events import DOMAIN, NOW_MS, event, load_directory, roles_event, root_event, speakers, stops, whole

LATER_MS = NOW_MS + 10_000
IN_FORCE_MS = LATER_MS + DELAY_MS
LIMIT_S = 5.0
ANA = Stop(scope=Scope.ALL)


class Log:
    """A broker with one partition in memory, and a tail of it."""

    def __init__(self) -> None:
        self.records: asyncio.Queue[list[Record]] = asyncio.Queue()
        self.appended = 0
        self.position = 0
        self.caught_up = asyncio.Event()

    def append(self, *events: Event, stamp_ms: int = LATER_MS) -> None:
        values = [codec.encode(each) for each in events]
        batch = [
            Record(topic="policy", partition=0, offset=offset, timestamp_ms=stamp_ms, key=None, value=value)
            for offset, value in enumerate(values, start=self.appended)
        ]
        self.appended += len(batch)
        self.records.put_nowait(batch)

    async def start_offset(self, topic: str, partition: int) -> int:
        return 0

    async def end_offset(self, topic: str, partition: int) -> int:
        return self.appended

    def tail(self, topic: str, partition: int, *, start: int) -> "Log":
        return self

    async def __aiter__(self) -> AsyncIterator[list[Record]]:
        while True:
            if self.position == self.appended:
                self.caught_up.set()
            batch = await self.records.get()
            self.position = batch[-1].offset + 1
            yield batch

    async def aclose(self) -> None:
        pass


class Reading:
    """Loaders of texts; the bundle `slow` is read only once it may, `broken` never."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.threads: set[str] = set()

    def bundle(self, content: bytes) -> str:
        self.threads.add(threading.current_thread().name)
        if content == b"broken":
            raise RuntimeError("a bug")
        if content == b"slow":
            self.begun.set()
            assert self.may_end.wait(LIMIT_S)
        return content.decode()

    def log(self) -> PolicyLog:
        loaders = Loaders(
            bundle=self.bundle,  # type: ignore[arg-type]
            types=lambda _: frozenset({"User"}),
            directory=load_directory,  # type: ignore[arg-type]
            judging=lambda bundle, directory, before: (bundle, directory),  # type: ignore[arg-type,return-value]
        )
        return PolicyLog(domain=DOMAIN, root_digest=digest_of(root_event().metadata), loaders=loaders)


class House:
    """A tail that has read a first version, and a second that is being read."""

    def __init__(self) -> None:
        self.log, self.reading = Log(), Reading()
        self.tail = PolicyTail(self.log, topic="policy", state=self.reading.log())  # type: ignore[arg-type]

    async def begin(self) -> None:
        first = (root_event(), event(Kind.BUNDLE, 1, b"b1"), event(Kind.DIRECTORY, 1, whole("u1")))
        self.log.append(*first, stamp_ms=NOW_MS)
        await self.tail.start(timeout_s=LIMIT_S)

    async def read_slowly(self) -> None:
        self.log.append(event(Kind.BUNDLE, 2, b"slow", effective_at_ms=NOW_MS + 1))
        await self.until(self.reading.begun.is_set)

    async def until(self, claim: "object") -> None:
        async with asyncio.timeout(LIMIT_S):
            while not claim():  # type: ignore[operator]  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def judging(self, time_ms: int) -> object:
        found = self.tail.rules_at(time_ms)
        return found.judging if isinstance(found, Rules) else found


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    await made.begin()
    yield made
    made.reading.may_end.set()
    for task in made.tail._tasks:
        task.cancel()
    await asyncio.gather(*made.tail._tasks, return_exceptions=True)


async def test_while_a_version_is_read_the_one_before_decides_what_it_can(house: House) -> None:
    await house.read_slowly()
    assert house.judging(IN_FORCE_MS - 1) == ("b1", "u1")
    waiting = house.judging(IN_FORCE_MS)
    assert isinstance(waiting, NotReady)
    assert "still being read" in waiting.reason
    assert [house.tail.settled(time_ms) for time_ms in (IN_FORCE_MS - 1, IN_FORCE_MS)] == [True, False]
    assert (house.tail.position, house.tail.state.position) == (3, 2)
    await house.tail.receive_end(timeout_s=LIMIT_S)
    ending = asyncio.create_task(house.tail.reach_end(timeout_s=LIMIT_S))
    await asyncio.sleep(0.05)
    assert not ending.done(), "what is being read is not folded"
    house.reading.may_end.set()
    await ending
    assert [house.judging(time_ms) for time_ms in (IN_FORCE_MS - 1, IN_FORCE_MS)] == [("b1", "u1"), ("slow", "u1")]
    assert threading.main_thread().name not in house.reading.threads


async def test_a_stop_behind_what_is_read_is_obeyed_at_once(house: House) -> None:
    made = decision(0)
    await house.read_slowly()
    assert not house.tail.stopped(made)
    house.log.append(stops(Kind.STOP, 1, ANA))
    await house.until(lambda: house.tail.stopped(made))
    assert house.tail.state.stops.hitting(made) is None, "it is not folded: the order of the log is kept"
    house.log.append(stops(Kind.RESUME, 1, ANA))
    await house.tail.receive_end(timeout_s=LIMIT_S)
    assert house.tail.stopped(made), "what undoes it waits for its turn"
    house.reading.may_end.set()
    await house.tail.reach_end(timeout_s=LIMIT_S)
    assert not house.tail.stopped(made)


async def test_a_stop_behind_what_says_who_may_stop_waits(house: House) -> None:
    made = decision(0)
    await house.read_slowly()
    house.log.append(roles_event(1, {"stop": speakers("ana")}, effective_at_ms=NOW_MS))
    house.log.append(stops(Kind.STOP, 1, ANA))  # by the publisher, who may no longer
    await house.tail.receive_end(timeout_s=LIMIT_S)
    assert not house.tail.stopped(made)
    house.reading.may_end.set()
    await house.tail.reach_end(timeout_s=LIMIT_S)
    assert not house.tail.stopped(made)


async def test_what_is_short_is_folded_as_it_comes(house: House) -> None:
    made = decision(0)
    house.tail.receive(
        Record(
            topic="policy",
            partition=0,
            offset=3,
            timestamp_ms=LATER_MS,
            key=None,
            value=codec.encode(stops(Kind.STOP, 1, ANA)),
        )
    )
    assert house.tail.state.stops.hitting(made) == ANA
    assert house.tail.waiting == 0


async def test_who_needs_only_roots_reads_nothing_else() -> None:
    log, reading = Log(), Reading()
    tail = PolicyTail(log, topic="policy", state=reading.log(), kinds=frozenset({Kind.ROOT}))  # type: ignore[arg-type]
    for number, each in enumerate((root_event(), event(Kind.BUNDLE, 1, b"b1"), root_event(2))):
        value = codec.encode(each)
        tail.receive(Record(topic="p", partition=0, offset=number, timestamp_ms=NOW_MS, key=None, value=value))
    assert (tail.position, tail.waiting, tail.state.version_of(Kind.ROOT)) == (2, 0, 2)
    assert tail.state.version_of(Kind.BUNDLE) == 0
    assert reading.threads == set()


async def test_a_bug_in_reading_stops_the_tail(house: House) -> None:
    house.log.append(event(Kind.BUNDLE, 2, b"broken", effective_at_ms=NOW_MS + 1))
    await house.until(lambda: not house.tail.followed)
    assert isinstance(house.judging(NOW_MS), NotReady)
    assert house.tail.stopped(decision(0))


async def test_a_fork_that_was_overtaken_is_not_adopted(house: House) -> None:
    fork = house.tail.state.fork()
    fork.skip(7)
    house.tail.state.skip(8)
    with pytest.raises(ValueError, match="the last is 8"):
        house.tail.state.adopt(fork)


async def test_nothing_is_collected_meanwhile_and_what_was_long_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    before, switch_s = gc.get_freeze_count(), sys.getswitchinterval()
    try:
        assert await beside(lambda: (gc.isenabled(), sys.getswitchinterval())) == (False, beside_module.SWITCH_S)
        assert (gc.isenabled(), sys.getswitchinterval()) == (True, switch_s)
        assert gc.get_freeze_count() == before, "a short call leaves nothing that is worth it"
        monkeypatch.setattr(beside_module, "LONG_S", 0.0)
        await beside(list)
        assert gc.get_freeze_count() > before
        with pytest.raises(ZeroDivisionError):
            await beside(lambda: 1 // 0)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
