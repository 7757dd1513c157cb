"""Effective releases in, the same bytes on the topic of the application that asked out: the only place that writes
reply topics and refusals.

A copy carries key, value and headers as they stand in `releases`, its seal among them, so whoever reads it need not
believe this stage: it can withhold an answer or repeat it, never make one. Order of effects for each piece: judge it,
append to each topic what belongs there, in order; only then begin the next. At least once: who reads drops repeats by
`release_id`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import KEY_UNKNOWN, Effective, Verifier, Void
from sluicegate.schemas import codec
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.delivered import PIECE_OFFSETS, TOPICS_AT_ONCE, find_delivered
from sluicegate.streams.ports import Log, PolicyCurrent
from sluicegate.streams.read_back import VERIFIED_BEFORE_YIELD
from sluicegate.streams.topology import Topology

log = logging.getLogger(__name__)
PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0
LOOKED_FOR_S: Final = 5.0
"""How long it is believed which topics there are."""
SETTLING_S: Final = 5.0
"""How long a topic must be missing before nobody waits for it: a broker that just started does not know them all."""
TOLD_MAX: Final = 1_000


class ReplyLog(Log, Protocol):
    """A log that knows which topics there are."""

    async def topics(self) -> Mapping[str, int]:
        """Every topic that there is, with its number of partitions."""


class Routes:
    """Where releases go: `replies()` is the reply topic of each service by the directory in force now, None for none.

    The directory of now, not of the release's own time: it says who reads that topic now.
    """

    def __init__(self, topology: Topology, replies: Callable[[], Mapping[str, str] | None]) -> None:
        self._topology = topology
        self._replies = replies

    def topics(self) -> tuple[str, ...]:
        """Every topic that releases go to.

        Raises:
            Unavailable: no directory is in force yet.
        """
        return (self._topology.refusals, *(self._topology.reply(name) for name in self._known().values()))

    def of(self, release: ReleaseMade) -> str | None:
        """The topic of one release; None where its application has none.

        Raises:
            Unavailable: no directory is in force yet.
        """
        if release.actor is None:
            return self._topology.refusals
        name = self._known().get(split_uid(release.actor)[1])
        return None if name is None else self._topology.reply(name)

    def _known(self) -> Mapping[str, str]:
        replies = self._replies()
        if replies is None:
            raise Unavailable("no directory is in force yet, so nobody is known to deliver to")
        return replies


class DeliveryLane:
    """One partition of `releases`. `recover` first, then `advance` with records in offset order, from one task.

    `verifier`: of what the redactor writes there. `settling_s`: how long a missing reply topic is waited for.
    `bytes_max`: most bytes of one batch. `may_append`: whether the partition is still held. `policy_current`: returns
    once all policy that is published is folded.
    """

    def __init__(
        self,
        *,
        broker: ReplyLog,
        verifier: Verifier,
        routes: Routes,
        bytes_max: int,
        may_append: Callable[[], bool],
        policy_current: PolicyCurrent,
        schema_ids: Mapping[int, str] | None = None,
        settling_s: float = SETTLING_S,
    ) -> None:
        self._broker = broker
        self._verifier = verifier
        self._routes = routes
        self._bytes_max = bytes_max
        self._may_append = may_append
        self._policy_current = policy_current
        self._schema_ids = schema_ids or {}
        self._releases: SealedLog | None = None
        self._frontier = 0
        self._copied: set[int] = set()
        self._waiting: dict[str, list[Record]] = {}
        self._there: Mapping[str, int] = {}
        self._looked_s = -LOOKED_FOR_S
        self._settling_s = settling_s
        self._missing_since_s: dict[str, float] = {}
        self._told: set[str] = set()
        self._closed = False
        self._in_flight = asyncio.Lock()
        self.skipped = 0

    @property
    def frontier(self) -> int:
        """The next release offset to be delivered.

        Raises:
            RuntimeError: `recover` has not returned yet.
        """
        if self._releases is None:
            raise RuntimeError("a lane is recovered before it is used")
        return self._frontier

    async def recover(self) -> int:
        """Reads back which copies stand already, and returns the offset to read releases from.

        Raises:
            Unavailable: the broker does not answer, or no directory is in force yet.
            ContinuityError: a log was cut or recreated.
        """
        await self._policy_current()
        topics = [topic for topic in self._routes.topics() if await self._is_there(topic)]
        found = await find_delivered(self._broker, self._verifier, topics=topics, belongs=self._belongs)
        self._copied, self._frontier = set(found.copied), found.before
        self._releases = SealedLog(self._verifier, start=found.before, source_start=None, in_order=False)
        self._waiting = {}
        return found.before

    async def advance(self, records: Sequence[Record]) -> None:
        """Returns when every effective release among them has its copy, or nowhere to go.

        Raises:
            Unavailable: the lane was closed meanwhile.
            ContinuityError: the log of releases is not sound.
            ConfigurationError: the broker forbids it, or refuses a batch.
        """
        for piece in _pieces([record for record in records if record.offset >= self.frontier]):
            pause_s = PAUSE_S
            while True:
                try:
                    await self._judge(piece)
                    async with self._in_flight:
                        await self._append_waiting()
                    break
                except Unavailable as error:
                    if self._closed:
                        raise
                    log.warning("delivery waits", extra={**self._where(piece[0].offset), "why": str(error)})
                    self._looked_s = -LOOKED_FOR_S
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)
            self._frontier = piece[-1].offset + 1
            self._copied = {offset for offset in self._copied if offset >= self._frontier}

    async def close(self) -> None:
        """The partition was given up: waits for the appends in flight; nothing is appended once this returns."""
        self._closed = True
        async with self._in_flight:
            pass

    async def _judge(self, piece: Sequence[Record]) -> None:
        """Puts each effective release that has no copy yet behind those that wait for the same topic."""
        releases = self._releases
        if releases is None:
            raise RuntimeError("a lane is recovered before it is used")
        policy_is_current = False
        for index, record in enumerate(piece):
            if record.offset < releases.end:
                continue  # judged before the broker went away
            if index % VERIFIED_BEFORE_YIELD == 0:
                await asyncio.sleep(0)
            verdict = self._verifier.verify(record)
            if isinstance(verdict, Void) and verdict.reason == KEY_UNKNOWN and not policy_is_current:
                # The redactor may seal with a key that was admitted a moment ago. Once a piece: a flood asks no more.
                await self._policy_current()
                policy_is_current = True
                verdict = self._verifier.verify(record)
            topic, there = None, False
            if isinstance(verdict, Effective):
                topic = self._routes.of(self._release(record))
                there = topic is not None and await self._is_there(topic)
            # From here on nothing is tried again: the log takes each offset once.
            if isinstance(releases.observe(record), Void) or record.offset in self._copied:
                continue
            if topic is None or not there:
                self._skip(record, topic)
                continue
            self._waiting.setdefault(topic, []).append(record)

    def _release(self, record: Record) -> ReleaseMade:
        return codec.decode(record.value, ReleaseMade, ids=self._schema_ids)

    def _belongs(self, topic: str, copy: Effective) -> bool:
        return self._routes.of(self._release(copy.record)) == topic

    async def _append_waiting(self) -> None:
        limit = asyncio.Semaphore(TOPICS_AT_ONCE)

        async def append(topic: str, waiting: list[Record]) -> None:
            async with limit:
                if not await self._is_there(topic):
                    for record in waiting:
                        self._skip(record, topic)
                    waiting.clear()
                while waiting:
                    await self._append_batch(topic, waiting)

        waits = [append(topic, waiting) for topic, waiting in self._waiting.items()]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        self._waiting = {topic: waiting for topic, waiting in self._waiting.items() if waiting}
        for error in sorted(
            (each for each in ended if each is not None), key=lambda each: isinstance(each, Unavailable)
        ):
            raise error

    async def _append_batch(self, topic: str, waiting: list[Record]) -> None:
        """Appends as many as fit, from the front, and takes them off once they are acknowledged."""
        if self._closed or not self._may_append():
            raise Unavailable("the partition is not held for certain: no heartbeat was acknowledged lately")
        batch: list[Unsent] = []
        size = 0
        for record in waiting:
            copy = Unsent(key=record.key, value=record.value or b"", headers=record.headers)
            size += copy.size_bytes()
            if batch and size > self._bytes_max:
                break
            batch.append(copy)
        await self._broker.append(topic, self._verifier.place.partition, batch)
        del waiting[: len(batch)]

    async def _is_there(self, topic: str) -> bool:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s >= LOOKED_FOR_S:
            self._there = await self._broker.topics()
            self._looked_s = now_s
        if self._there.get(topic, 0) > self._verifier.place.partition:
            self._missing_since_s.pop(topic, None)
            return True
        if now_s - self._missing_since_s.setdefault(topic, now_s) < self._settling_s:
            raise Unavailable(f"there is no topic `{topic}`; it is waited for")
        return False

    def _skip(self, record: Record, topic: str | None) -> None:
        """Nobody can be told: the log says so, once for each application or topic."""
        self.skipped += 1
        whom = topic or self._release(record).actor or ""
        if whom not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(whom)
            why = "there is no such topic" if topic else "the directory names no reply topic for this service"
            log.error("release not delivered", extra={**self._where(record.offset), "to": whom, "why": why})

    def _where(self, offset: int) -> dict[str, object]:
        place = self._verifier.place
        return {"topic": place.topic, "partition": place.partition, "offset": offset}


def _pieces(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Runs of records that span at most `PIECE_OFFSETS` offsets: what `find_delivered` counts on."""
    first = 0
    for index, record in enumerate(records):
        if record.offset - records[first].offset >= PIECE_OFFSETS:
            yield records[first:index]
            first = index
    if records:
        yield records[first:]
