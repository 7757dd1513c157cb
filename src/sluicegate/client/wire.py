"""The port between the client and a broker: what is sent, what comes back, and what came before."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from sluicegate.schemas.records import Record, Unsent


class Wire(Protocol):
    """One connection of one client. Used from one event loop; `follow` from one task, the rest from any."""

    async def open(self, *, requests: str, replies: Sequence[str]) -> int:
        """Connects, and stands at the end of every partition of `replies`; the number of partitions of `requests`.

        A record that is appended to `replies` after the return MUST come out of `follow`.

        Raises:
            ConfigurationError: a topic is missing or forbidden.
            Unavailable: the broker does not answer.
        """

    async def close(self) -> None:
        """Disconnects."""

    async def append(self, topic: str, partition: int, record: Unsent) -> int:
        """Appends one record, acknowledged by all replicas; the offset it got. It may land more than once.

        Raises:
            Unavailable: whether it landed is not known.
            ConfigurationError: it did not land, and will not.
        """

    async def follow(self) -> list[Record]:
        """The next records of `replies`, each partition's in order; waits for them, through a broker's restart too.

        Between the return and the caller's next await nothing else MUST run: what was returned counts as read.

        Raises:
            ContinuityError: a log no longer holds the position; answers may be lost.
            ConfigurationError: a topic is forbidden or holds what cannot be read.
        """

    def history(
        self, topics: Sequence[str], partitions: Iterable[int], since_ms: int | None
    ) -> AsyncIterator[list[Record]]:
        """The records before the place where `follow` stands at the call, not older than `since_ms` (None: all kept).

        Raises:
            Unavailable: the broker does not answer.
            ConfigurationError: as `open`.
        """
