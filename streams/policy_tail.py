"""The policy log, followed whole: records in, the policy state at any T out; ready only once it has reached the
log's end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.state import NotReady, PolicyLog, Rejected, Rules
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.events import DecisionMade, DirectoryChanged, PolicyPublished
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record
from sluicegate.streams.kafka import Broker, Tail

log = logging.getLogger(__name__)
PARTITION = 0
WAIT_MS = 150
POLL_S = 0.01


def decode_policy_event(record: Record) -> PolicyPublished | DirectoryChanged:
    """The policy event of a record.

    Raises:
        CodecError: it is neither.
    """
    try:
        return codec.decode(record.value, PolicyPublished)
    except CodecError:
        return codec.decode(record.value, DirectoryChanged)


class PolicyTail:
    """Follows the one-partition policy topic into a `PolicyLog`. Readers take immutable snapshots; a bad event
    changes nothing.
    """

    def __init__(self, broker: Broker, *, topic: str, state: PolicyLog) -> None:
        self._broker = broker
        self._topic = topic
        self.state = state
        self._tail: Tail | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, timeout_s: float) -> None:
        """Follows from the log's start and returns once the end seen at the start is folded.

        Raises:
            Unavailable: the end was not reached in time.
        """
        self._tail = self._broker.tail(
            self._topic, PARTITION, start=await self._broker.start_offset(self._topic, PARTITION)
        )
        self._task = asyncio.create_task(self._follow(self._tail))
        try:
            await asyncio.wait_for(self._tail.caught_up.wait(), timeout_s)
        except TimeoutError:
            raise Unavailable(
                f"the policy log `{self._topic}` was not read to its end within {timeout_s:g} s"
            ) from None

    async def _follow(self, tail: Tail) -> None:
        async for batch in tail:
            for record in batch:
                self.fold(record)

    def fold(self, record: Record) -> None:
        """Takes one record; what is not a policy event, or not a valid next version, is logged by code and leaves no
        trace.
        """
        try:
            event = decode_policy_event(record)
        except CodecError:
            log.warning("policy event unreadable", extra={"offset": record.offset})
            self.state.skip(record.offset)
            return
        found = self.state.fold(record.offset, event, record.timestamp_ms)
        if isinstance(found, Rejected):
            log.warning(
                "policy event rejected", extra={"offset": record.offset, "code": found.code, "reason": found.reason}
            )

    @property
    def followed(self) -> bool:
        """Whether new policy events are still being taken."""
        return self._task is not None and not self._task.done()

    def rules_at(self, time_ms: int) -> Rules | NotReady:
        """The policy state in force at T; not ready when the tail has stopped."""
        if not self.followed:
            return NotReady(reason="the policy log is not being followed")
        return self.state.at(time_ms)

    async def reach_end(self, *, timeout_s: float) -> None:
        """Returns once everything is folded that stands in the log at the call.

        Raises:
            Unavailable: the broker does not answer, or the end was not reached in time.
        """
        end = await self._broker.end_offset(self._topic, PARTITION)
        try:
            async with asyncio.timeout(timeout_s):
                while self._tail is None or self._tail.position < end:  # noqa: ASYNC110 - a tail tells nobody
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(f"`{self._topic}` was not followed to its end within {timeout_s:g} s") from None

    def replies_at(self, time_ms: int) -> Mapping[str, str] | None:
        """The reply topic of each service at T; None where no directory is in force yet."""
        return self.state.replies_at(time_ms)

    def stopped(self, decision: DecisionMade) -> bool:
        """Whether what this decision grants must stop now: by a stop, or because stops would not be heard of."""
        return not self.followed or self.state.stopped(decision) is not None

    def stage_keys(self, stage: str) -> Mapping[KeyId, StageKey]:
        """The admitted keys of a stage, now."""
        return self.state.stage_keys(stage)

    async def stop(self) -> None:
        """Stops following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._tail is not None:
            await self._tail.aclose()
