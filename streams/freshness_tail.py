"""The freshness topic, followed: signed promises in, whether anything may be decided at an event time out; the only
place that joins what was promised to what was folded of the policy log.

Nobody is believed for having written to the topic, and no promise needs another: what is lost or cut away is passed.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from sluicegate.enforcer.freshness import Cover, Coverage, verify_freshness
from sluicegate.enforcer.state import NotReady, Rules
from sluicegate.enforcer.trust import Domain, Untrusted
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PolicyTail

log = logging.getLogger(__name__)
PARTITION: Final = 0
RECORDS_BACK: Final = 64
RECORD_BYTES_MAX: Final = 16 * 1024
VERIFIED_BEFORE_YIELD: Final = 32
PAUSE_S: Final = 0.5


def monotonic_ms() -> int:
    """A clock that only runs forward."""
    return time.monotonic_ns() // 1_000_000


class FreshnessTail:
    """Follows the one-partition freshness topic beside `policy`. `stale_after_ms`: how long coverage may stand still
    before everything is denied; `now_ms`: a clock that only runs forward.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        topic: str,
        policy: PolicyTail,
        domain: Domain,
        stale_after_ms: int,
        now_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._policy = policy
        self._domain = domain
        self._stale_after_ms = stale_after_ms
        self._now_ms = now_ms
        self._coverage = Coverage(stale_after_ms=stale_after_ms, now_ms=now_ms())
        self._task: asyncio.Task[None] | None = None
        self.refused = 0
        """How many records were no promise of the root's `timestamp`."""

    async def start(self) -> None:
        """Follows from a little before the end of the topic.

        Raises:
            ConfigurationError, Unavailable: there is no such topic, or the broker does not answer.
        """
        start = await self._near_end()
        self._task = asyncio.create_task(self._follow(start))

    async def _near_end(self) -> int:
        first = await self._broker.start_offset(self._topic, PARTITION)
        return max(first, await self._broker.end_offset(self._topic, PARTITION) - RECORDS_BACK)

    async def _follow(self, start: int) -> None:
        while True:
            tail = self._broker.tail(self._topic, PARTITION, start=start)
            try:
                async for batch in tail:
                    for count, record in enumerate(batch, start=1):
                        self.fold(record)
                        if count % VERIFIED_BEFORE_YIELD == 0:
                            await asyncio.sleep(0)
            except ContinuityError as error:
                # Its retention is short: a worker that slept may find that what came next is deleted.
                log.warning("freshness is followed from its end again", extra={"why": str(error)})
            finally:
                await tail.aclose()
            start = await self._near_end_once_known()

    async def _near_end_once_known(self) -> int:
        while True:
            await asyncio.sleep(PAUSE_S)
            try:
                return await self._near_end()
            except Unavailable as error:
                log.warning("freshness waits", extra={"why": str(error)})

    def fold(self, record: Record) -> None:
        """Takes one record; what is no promise of the root's `timestamp` leaves no trace but a count."""
        root = self._policy.state.root
        value = record.value or b""
        if root is None or not 0 < len(value) <= RECORD_BYTES_MAX:
            self._refuse(record, "MALFORMED")
            return
        found = verify_freshness(value, domain=self._domain, root=root, stamp_ms=record.timestamp_ms)
        if isinstance(found, Untrusted):
            self._refuse(record, found.fault)
            return
        self._coverage.hear(found, position=self._policy.position, now_ms=self._now_ms())

    def _refuse(self, record: Record, fault: str) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th, 8th: a flood fills no log
            log.warning(
                "freshness record refused", extra={"offset": record.offset, "code": fault, "refused": self.refused}
            )

    @property
    def followed(self) -> bool:
        """Whether new promises are still being taken."""
        return self._task is not None and not self._task.done()

    def _at(self, time_ms: int) -> Cover:
        cover = self._coverage.at(time_ms, position=self._policy.position, now_ms=self._now_ms())
        # A log that is followed no more never settles; what is asked then is denied by the policy state.
        waiting = self._policy.followed and not self._policy.settled(time_ms)
        return Cover.WAITING if cover is Cover.COVERED and waiting else cover

    def may_decide(self, time_ms: int) -> bool:
        """Whether what is in force at T is known, or all is denied for want of it: else wait."""
        return self._at(time_ms) is not Cover.WAITING

    def rules_at(self, time_ms: int) -> Rules | NotReady:
        """The policy state in force at T; none that may lack something."""
        cover = self._at(time_ms)
        if cover is Cover.COVERED:
            return self._policy.rules_at(time_ms)
        if cover is Cover.WAITING:
            reason = "what is in force at the time of this request is not promised to be complete yet: ask again"
        else:
            reason = (
                f"for more than {self._stale_after_ms / 1000:g} s nobody has promised that no version of the policy is "
                "missing here: an operator starts `sluicegate run freshness`, or lets its records and the policy log "
                "through to this enforcer"
            )
        return NotReady(reason=reason, code=Code.POLICY_STALE)

    async def stop(self) -> None:
        """Stops following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
