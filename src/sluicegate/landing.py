"""Every topic in, rows of the audit out: follows each partition from where the audit ends and lands what it reads.

Order of effects for each partition: read the frontier back from the audit, hold it against the log, verify the seal of
each record, insert one block, go on. Nothing is remembered outside the audit: after a kill, the next read-back goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from sluicegate.enforcer.history import decode_policy_event
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Verifier, Void
from sluicegate.enforcer.state import PolicyLog, Rejected
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.sinks.rows import Landing
from sluicegate.sinks.sink import Sink
from sluicegate.streams.kafka import Broker, Tail

logger = logging.getLogger(__name__)
RETRY_S: Final = 0.5
T_ = TypeVar("T_")
Judge = Callable[[Record], tuple[bool, str | None]]


def judge_accepted(record: Record) -> tuple[bool, str | None]:
    """Requests carry no seal: each counts, whatever the gate makes of it."""
    del record
    return True, None


def judge_sealed(verifier: Verifier, *, start: int) -> Judge:
    """Whether a record of a sealed topic is effective, and why not."""
    folded = SealedLog(verifier, start=start, in_order=False)

    def judge(record: Record) -> tuple[bool, str | None]:
        verdict = folded.observe(record)
        return (False, verdict.reason) if isinstance(verdict, Void) else (True, None)

    return judge


def judge_policy(state: PolicyLog) -> Judge:
    """Whether a policy record is an accepted version, and why not. It must see the log from its first record."""

    def judge(record: Record) -> tuple[bool, str | None]:
        try:
            event = decode_policy_event(record)
        except CodecError as error:
            state.skip(record.offset)
            return False, str(error)
        found = state.fold(record.offset, event, record.timestamp_ms)
        return (False, f"{found.code}: {found.reason}") if isinstance(found, Rejected) else (True, None)

    return judge


class PartitionLanding:
    """Follows one partition. `judge_from(start)` judges records from `start` on; `whole`: it must see the whole log."""

    def __init__(
        self,
        *,
        broker: Broker,
        sink: Sink,
        lock: asyncio.Lock,
        epoch: int,
        topic: str,
        partition: int,
        judge_from: Callable[[int], Judge],
        whole: bool,
        wait_s: float,
    ) -> None:
        self._broker = broker
        self._sink = sink
        self._lock = lock
        self._epoch = epoch
        self._topic = topic
        self._partition = partition
        self._judge_from = judge_from
        self._whole = whole
        self._wait_s = wait_s
        self._frontier = 0
        self._judge = judge_from(0)

    async def start(self) -> Tail:
        """Holds the audit against the log and returns the tail to follow.

        Raises:
            ContinuityError: the audit and the log do not belong together.
        """
        log_start = await self._broker.start_offset(self._topic, self._partition)
        log_end = await self._broker.end_offset(self._topic, self._partition)
        frontier = await self._in_thread(lambda: self._sink.frontier(self._epoch, self._topic, self._partition))
        last: Record | None = None
        if log_start < frontier <= log_end:
            async for batch in self._broker.read(self._topic, self._partition, start=frontier - 1, end=frontier):
                last = next((record for record in batch if record.offset == frontier - 1), last)
        self._frontier = await self._in_thread(
            lambda: self._sink.check_continuity(
                self._epoch, self._topic, self._partition, log_start=log_start, log_end=log_end, log_record=last
            )
        )
        read_from = log_start if self._whole else self._frontier
        self._judge = self._judge_from(read_from)
        wait_ms = int(self._wait_s * 1000)
        return self._broker.tail(self._topic, self._partition, start=read_from, wait_ms=wait_ms)

    async def follow(self, tail: Tail) -> None:
        """Lands what the tail brings, for ever; a database that is away is tried again, and nothing is passed over."""
        async for batch in tail:
            judged = [(record, *self._judge(record)) for record in batch]
            await self._land(
                self._without_landed(
                    [
                        Landing(record=record, effective=effective, void_reason=reason)
                        for record, effective, reason in judged
                    ]
                )
            )
            await asyncio.sleep(self._wait_s)  # what comes meanwhile comes in one fetch and lands in one block

    def _without_landed(self, waiting: list[Landing]) -> list[Landing]:
        filled: list[Landing] = []
        expected = self._frontier
        for landing in waiting:
            if landing.record.offset < expected:
                continue
            filled += [self._hole(offset) for offset in range(expected, landing.record.offset)]
            filled.append(landing)
            expected = landing.record.offset + 1
        return filled

    def _hole(self, offset: int) -> Landing:
        nothing = Record(
            topic=self._topic, partition=self._partition, offset=offset, timestamp_ms=0, key=None, value=None
        )
        return Landing(record=nothing, effective=False, void_reason="the log holds no record at this offset")

    async def _land(self, landings: list[Landing]) -> None:
        while landings:
            try:
                await self._insert(landings)
                return
            except Unavailable as error:
                logger.error("audit does not take rows", extra={"topic": self._topic, "reason": str(error)})
                await asyncio.sleep(RETRY_S)
                self._frontier = await self._in_thread(
                    lambda: self._sink.frontier(self._epoch, self._topic, self._partition)
                )
                landings = self._without_landed(landings)

    async def _insert(self, landings: list[Landing]) -> None:
        self._frontier = await self._in_thread(
            lambda: self._sink.land(self._epoch, self._topic, self._partition, landings)
        )

    async def landed(self) -> None:
        """Returns once everything that stands in the log now has landed; `follow` must be running."""
        end = await self._broker.end_offset(self._topic, self._partition)
        while self._frontier < end:  # noqa: ASYNC110 - the tail has no end to wait for; the caller limits the time
            await asyncio.sleep(self._wait_s)

    async def _in_thread(self, call: Callable[[], T_]) -> T_:
        async with self._lock:
            return await asyncio.to_thread(call)
