"""What a lane needs of a broker: append a batch, read a partition, know its ends. `kafka.Broker` is the real one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Record, Unsent

PolicyCurrent = Callable[[], Awaitable[None]]
"""Returns once all policy is folded that stands in its log at the call. A key is admitted there before it seals, so
what looks foreign may be a colleague's who is newer than what was heard of the policy; a verdict on it waits for this.

Raises `Unavailable`: the broker does not answer.
"""


async def always_current() -> None:
    """For lanes whose keys never change."""


def always_covered(time_ms: int) -> bool:
    """For lanes whose decisions depend on no policy that somebody could hold back."""
    del time_ms
    return True


def never_stopped(decision: DecisionMade) -> bool:
    """For lanes without a policy log, where nobody can stop anything."""
    del decision
    return False


class Log(Protocol):
    """The logs of one epoch. Every error of the transport arrives as one of `schemas.errors`."""

    async def append(self, topic: str, partition: int, records: Sequence[Unsent]) -> int:
        """Appends ONE record batch, acknowledged by all replicas, and returns the base offset the broker gave it.

        Raises:
            Unavailable: the outcome is not known; the caller MUST read back before it appends again.
            ValueError: the batch is over the limit; nothing was sent.
        """

    def read(self, topic: str, partition: int, *, start: int, end: int | None = None) -> AsyncIterator[list[Record]]:
        """The records from `start` up to the high watermark at the call, or to `end`."""

    async def start_offset(self, topic: str, partition: int) -> int:
        """The first offset that the log keeps."""

    async def end_offset(self, topic: str, partition: int) -> int:
        """The exact high watermark: the offset the next record will get."""


class PartitionLane(Protocol):
    """What a worker loop feeds with the records of one assigned partition: `Lane`, the runner's and the redactor's."""

    @property
    def frontier(self) -> int:
        """The next source offset that the lane will take."""

    async def recover(self) -> int:
        """Reads back the stage's own output and returns the source offset to read from. MUST come before `advance`."""

    async def advance(self, records: Sequence[Record]) -> None:
        """Takes records from the frontier on until each is covered or admitted. MUST NOT raise for bad input."""

    async def close(self) -> None:
        """The partition was revoked: nothing is appended once this returns."""
